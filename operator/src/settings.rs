//! How the owner of the cluster wants decisions made: a YAML file of the core's
//! [`Settings`], read at the start and again when it has changed. What the
//! settings mean is the core's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vingt_core::model::Settings;

use crate::metrics::Metrics;

/// How often the file is looked at: the kubelet brings a changed `ConfigMap` within a minute or so anyway.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is in force, and what is wrong with the file if it does not say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What is in force.
    pub settings: Settings,
    /// Why the file as it is now was not taken; what was in force before still is.
    pub refused: Option<String>,
}

/// Reads a file; without one, the defaults hold. The error names file, line and field.
pub fn read(path: Option<&Path>) -> anyhow::Result<Settings> {
    let Some(path) = path else { return Ok(Settings::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("settings {}", path.display()))?;
    parse(&text).with_context(|| format!("settings {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Settings> {
    // An empty document is an empty map: all defaults.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    let settings: Settings = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| {
            let field = error.path().to_string();
            let inner = error.into_inner();
            // The library names the place itself, but for unknown fields only the line.
            let words = inner.to_string();
            if words.contains(&field) || field == "." { anyhow!(words) } else { anyhow!("{field}: {words}") }
        })?;
    check(&settings).map_err(|(field, why)| {
        let line = text.lines().position(|line| line.trim_start().starts_with(field));
        let line = line.map_or_else(String::new, |line| format!(" at line {}", line + 1));
        anyhow!("{field}: {why}{line}")
    })?;
    Ok(settings)
}

/// What the types let through and makes no sense; the error names the field.
fn check(settings: &Settings) -> Result<(), (&'static str, String)> {
    let times = [
        ("halfLifeMs", settings.half_life_ms, 1),
        ("agingMs", settings.aging_ms, 1),
        ("reserveAfterMs", settings.reserve_after_ms, 0),
    ];
    for (field, value, least) in times {
        if value < least {
            return Err((field, format!("{value} is too small, it must be at least {least}")));
        }
    }
    if settings.moves_per_thousand > 1000 {
        let moves = settings.moves_per_thousand;
        return Err(("movesPerThousand", format!("{moves} is too much, it may be at most 1000")));
    }
    Ok(())
}

/// Reads the file, which must be right, and then whenever it has changed, until `stop`. A file that is wrong by then
/// is told of in the log, in a metric and in what is sent; what was in force stays so.
pub fn follow(
    path: Option<PathBuf>,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<watch::Receiver<Loaded>> {
    let settings = read(path.as_deref())?;
    metrics.settings_valid.set(1);
    tracing::info!(?settings, "settings");
    let (to, from) = watch::channel(Loaded { settings, refused: None });
    if let Some(path) = path {
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let file = path.clone();
                let answer = tokio::task::spawn_blocking(move || read(Some(&file))).await;
                let answer = answer.unwrap_or_else(|error| Err(error.into()));
                to.send_if_modified(|loaded| renew(loaded, answer, &metrics));
            }
        });
    }
    Ok(from)
}

/// Takes what was read; returns whether it says anything new.
fn renew(loaded: &mut Loaded, answer: anyhow::Result<Settings>, metrics: &Metrics) -> bool {
    let new = match answer {
        Ok(settings) => Loaded { settings, refused: None },
        Err(error) => Loaded { settings: loaded.settings.clone(), refused: Some(format!("{error:#}")) },
    };
    if *loaded == new {
        return false;
    }
    metrics.settings_valid.set(i64::from(new.refused.is_none()));
    if let Some(why) = &new.refused {
        tracing::error!(%why, "the settings have changed and are wrong; the old ones stay in force");
    } else {
        tracing::info!(settings = ?new.settings, "new settings");
    }
    *loaded = new;
    true
}

#[cfg(test)]
mod tests {
    use vingt_core::model::PlacementPolicy;

    use super::*;

    #[test]
    fn what_is_not_said_is_the_default() {
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("# nothing\n").unwrap(), Settings::default());
        let settings = parse("placement: Spread\nreclaim: false\n").unwrap();
        let expected = Settings { placement: PlacementPolicy::Spread, reclaim: false, ..Settings::default() };
        assert_eq!(settings, expected);
    }

    #[test]
    fn an_error_names_line_and_field() {
        for (text, words) in [
            ("reclaim: false\nhalfLifeDays: 7\n", ["halfLifeDays", "line 2"]),
            ("reclaim: false\nagingMs: soon\n", ["agingMs", "line 2"]),
            ("placement: Best\n", ["placement", "line 1"]),
            ("reclaim: true\nhalfLifeMs: 0\n", ["halfLifeMs", "line 2"]),
            ("movesPerThousand: 5000\n", ["movesPerThousand", "line 1"]),
            ("reclaim: [\n", ["line", "column"]),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }

    #[test]
    fn a_wrong_file_leaves_in_force_what_was() {
        let metrics = Metrics::new().unwrap();
        let mut loaded = Loaded::default();
        let fine = Settings { reclaim: false, ..Settings::default() };
        assert!(renew(&mut loaded, Ok(fine.clone()), &metrics));
        assert!(renew(&mut loaded, Err(anyhow!("line 2: no")), &metrics));
        assert_eq!(loaded, Loaded { settings: fine.clone(), refused: Some("line 2: no".into()) });
        assert_eq!(metrics.settings_valid.get(), 0);
        assert!(!renew(&mut loaded, Err(anyhow!("line 2: no")), &metrics), "nothing new");
        assert!(renew(&mut loaded, Ok(fine), &metrics));
        assert_eq!((loaded.refused, metrics.settings_valid.get()), (None, 1));
    }
}
