//! Tables in plain text: columns, no lines, as kubectl prints them.

use comfy_table::{CellAlignment, Table, presets};

use crate::printable::printable;

/// A table whose rows are added one by one.
#[derive(Debug)]
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    /// A table with these columns.
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(names.to_vec());
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    /// Aligns a column of numbers.
    #[must_use]
    pub(crate) fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Adds a row, one cell a column.
    pub(crate) fn row(&mut self, cells: &[String]) {
        self.table.add_row(cells.iter().map(|cell| printable(cell)));
    }

    /// The text, each line ended.
    pub(crate) fn render(&self) -> String {
        format!("{}\n", self.table.trim_fmt())
    }
}
