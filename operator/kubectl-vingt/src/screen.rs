//! What is known of where the output goes: its width, whether it shows
//! colours, and tables that fit it. What is drawn is not decided here.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

/// Columns where the width is not known.
const WIDTH: u16 = 80;

/// Colours that are told apart on dark and on light ground, of the 256 that terminals have.
const PALETTE: [u8; 12] = [39, 208, 35, 170, 178, 44, 160, 99, 106, 209, 30, 132];

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where the output goes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns.
    pub width: u16,
    /// Whether it shows colours.
    pub colours: bool,
    /// Whether a person looks at it, and it can be drawn over.
    pub terminal: bool,
}

impl Screen {
    /// Standard output.
    pub fn stdout(colours: ColourChoice) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let wanted = || terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            width: if terminal { width() } else { WIDTH },
            colours: match colours {
                ColourChoice::Auto => wanted(),
                ColourChoice::Always => true,
                ColourChoice::Never => false,
            },
            terminal,
        }
    }

    /// The same, as wide as it is now.
    pub fn resized(self) -> Self {
        Self { width: if self.terminal { width() } else { self.width }, ..self }
    }

    /// `text` in the `index`th colour.
    pub fn paint(self, index: usize, text: &str) -> String {
        let colour = PALETTE[index % PALETTE.len()];
        if self.colours { format!("\x1b[38;5;{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text`, less bright than the rest.
    pub fn dim(self, text: &str) -> String {
        if self.colours { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A cell of a table in the `index`th colour.
    pub fn cell(self, index: usize, text: &str) -> Cell {
        let cell = Cell::new(text);
        if self.colours { cell.fg(Color::AnsiValue(PALETTE[index % PALETTE.len()])) } else { cell }
    }

    /// A table without lines, as kubectl's are, that fits; `right` are the columns of numbers.
    pub fn table(
        self,
        header: &[&str],
        right: &[usize],
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(self.width);
        if self.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|title| (*title).to_owned()));
        table.add_rows(rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}

/// Columns of the terminal.
fn width() -> u16 {
    Table::new().width().unwrap_or(WIDTH)
}

/// A cell of plain text.
pub fn cell(text: impl Into<String>) -> Cell {
    Cell::new(text.into())
}
