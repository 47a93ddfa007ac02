//! Events that users see on their objects (`kubectl describe`), once for each
//! transition. They are told, never read: losing one loses nothing.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::Engine;
use super::api::Writer;
use super::pods::pod_reference;
use crate::world::Key;

/// Publishes events.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Publishes as the operator's process `identity`.
    pub fn new(writer: &Writer, identity: String) -> Self {
        let reporter =
            Reporter { controller: vingt_crds::names::OPERATOR.to_owned(), instance: Some(identity) };
        Self { recorder: Recorder::new(writer.client().clone(), reporter) }
    }

    /// Tells it.
    pub fn publish(&self, announcement: Announcement) {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let Announcement { event, about } = announcement;
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::debug!(%error, reason = %event.reason, "an event was not published");
            }
        });
    }
}

/// Something to be told of an object.
pub struct Announcement {
    event: Event,
    about: ObjectReference,
}

impl Announcement {
    /// Something went as it should.
    pub fn normal(about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        Self::new(EventType::Normal, about, reason, action, note)
    }

    /// Something needs attention.
    pub fn warning(about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        Self::new(EventType::Warning, about, reason, action, note)
    }

    fn new(type_: EventType, about: ObjectReference, reason: &str, action: &str, note: String) -> Self {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(short(note)),
            action: action.to_owned(),
            secondary: None,
        };
        Self { event, about }
    }
}

impl Engine {
    /// Tells on the operator's own pod that the settings were taken, or why they were not.
    pub(super) fn tell_settings(&mut self) {
        let refused = self.settings.borrow_and_update().refused.clone();
        let key = Key::new(&self.namespace, &self.identity);
        let Some(pod) = self.world.pods.get(&key) else { return };
        let about = pod_reference(&key, pod);
        let announcement = if let Some(why) = refused {
            let note = format!("{why}; the settings before stay in force");
            Announcement::warning(about, "SettingsRefused", "ReadSettings", note)
        } else {
            let note = "the new settings are in force".to_owned();
            Announcement::normal(about, "SettingsTaken", "ReadSettings", note)
        };
        self.events.publish(announcement);
    }
}

/// A job of vingt's kinds as events name it.
pub fn job_reference(kind: &str, key: &Key, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some("vingt.dev/v1alpha1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    }
}

/// At most as many bytes as the API takes.
fn short(mut note: String) -> String {
    const MAX_BYTES: usize = 1000;
    let end = (0..=MAX_BYTES.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
    note.truncate(end);
    note
}
