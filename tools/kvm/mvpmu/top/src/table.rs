// SPDX-License-Identifier: GPL-2.0

//! The table as text, for `--once`.

use mvpmu_host::perf_events::Owners;

use crate::column::Column;
use crate::column::Show;
use crate::detail;
use crate::row::Row;
use crate::sample::Sample;
use crate::screen;

/// The head, the rows, and what is known of each vCPU.
pub fn text(sample: &Sample, rows: &[Row], suspects: Option<&Owners>, show: Show) -> String {
    let mut text = format!(
        "{}\n{}\n\n",
        screen::head(&sample.capability),
        screen::totals(sample)
    );
    let line = |cells: Vec<String>| {
        let cells: Vec<_> = Column::ALL
            .iter()
            .zip(cells)
            .map(|(column, cell)| {
                let width = usize::from(column.width());
                match column.is_text() {
                    true => format!("{cell:width$}"),
                    false => format!("{cell:>width$}"),
                }
            })
            .collect();
        format!("{}\n", cells.join(" ").trim_end())
    };
    text += &line(Column::ALL.iter().map(|c| c.title().to_owned()).collect());
    for row in rows {
        let cells = Column::ALL.iter().map(|c| c.value(row, show).to_string());
        text += &line(cells.collect());
    }
    for row in rows {
        text += &format!("\n{}\n", detail::lines(row, suspects).join("\n  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use crate::row::rows;

    #[test]
    fn there_is_a_line_and_a_paragraph_for_each_vcpu() {
        let (_, second) = recorded::samples();
        let rows = rows(&second, None, &recorded::PRICES);
        let text = text(&second, &rows, None, Show::Totals);
        let table: Vec<_> = text.lines().skip(4).take(3).collect();
        for (line, row) in table.iter().zip(&rows) {
            let cells: Vec<_> = line.split_whitespace().collect();
            assert_eq!(cells.len(), Column::ALL.len());
            assert_eq!(cells[1], row.pid.to_string());
            assert_eq!(cells[5], row.counts.loads.to_string());
        }
        for row in &rows {
            assert!(text.contains(&format!("\n{}", row.name())));
        }
        assert!(text.lines().all(|line| line.trim_end() == line));
    }
}
