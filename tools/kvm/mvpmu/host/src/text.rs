// SPDX-License-Identifier: GPL-2.0

//! Text that others have written.

/// The same with anything that a terminal would obey replaced: a process chooses its own name.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}c"), "a?[2Jb??c");
    }
}
