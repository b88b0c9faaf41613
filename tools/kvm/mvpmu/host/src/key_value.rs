// SPDX-License-Identifier: GPL-2.0

//! Lines "key: value", as mvpmu shows them in debugfs.

/// The keys and values, in their order.
pub fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(": "))
}

/// The value of `key`.
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    parse(text).find_map(|(name, value)| (name == key).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_what_separates() {
        let text = "version: 2\nreason: the module: it is off\n";
        assert_eq!(value(text, "version"), Some("2"));
        assert_eq!(value(text, "reason"), Some("the module: it is off"));
        assert_eq!(value(text, "loads"), None);
    }
}
