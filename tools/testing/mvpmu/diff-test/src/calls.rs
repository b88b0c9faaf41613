// SPDX-License-Identifier: GPL-2.0

//! Random programs of calls: ioctls of KVM for VMs with a PMU, what their guests do to it, events
//! of the host, CPUs that come and go. `calls` of the selftests makes them.

mod generate;

use std::fmt;
use std::str::FromStr;

use crate::shrink::Operation;

pub use generate::generate;

/// A call and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    name: String,
    arguments: Vec<u64>,
}

/// Calls, at the end of which all is closed.
pub type Calls = Vec<Call>;

impl Call {
    fn new(name: &str, arguments: &[u64]) -> Self {
        Call {
            name: name.to_owned(),
            arguments: arguments.to_vec(),
        }
    }
}

impl Operation for Call {
    fn simpler(&self) -> Vec<Call> {
        let mut simpler = Vec::new();
        for (at, &argument) in self.arguments.iter().enumerate() {
            let mut others = vec![0, argument / 2];
            // Without one of its bits.
            others.extend((0..64).map(|bit| argument & !(1 << bit)));
            others.retain(|&other| other != argument);
            others.sort_unstable();
            others.dedup();
            simpler.extend(others.into_iter().map(|other| {
                let mut call = self.clone();
                call.arguments[at] = other;
                call
            }));
        }
        simpler
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for argument in &self.arguments {
            write!(f, " {argument:#x}")?;
        }
        Ok(())
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Call, String> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("a line without a call")?;
        let number = |word: &str| {
            let number = match word.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => word.parse(),
            };
            number.map_err(|_| format!("not a number: {word}"))
        };
        Ok(Call {
            name: name.to_owned(),
            arguments: words.map(number).collect::<Result<_, _>>()?,
        })
    }
}

/// The programs as `calls` takes them; they have their place as a number.
pub fn text(programs: &[Calls]) -> String {
    let mut text = String::new();
    for (number, program) in programs.iter().enumerate() {
        text.push_str(&format!("program {number}\n"));
        for call in program {
            text.push_str(&format!("{call}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when numbers are written without 0x.
    #[test]
    fn what_is_written_can_be_read() {
        let call = Call::new("guest-wrmsr", &[0, 0xc001_0200, 0x43_00c0]);
        assert_eq!(call.to_string(), "guest-wrmsr 0x0 0xc0010200 0x4300c0");
        assert_eq!(call.to_string().parse(), Ok(call));
        assert!("run 0xg".parse::<Call>().is_err());
        assert!("".parse::<Call>().is_err());
    }

    // Has to fail when a number is among its own simpler ones: shrinking never ends.
    #[test]
    fn simpler_calls_are_others_with_fewer_bits() {
        let call = Call::new("set-msr", &[1, 0, 5]);
        let texts: Vec<_> = call.simpler().iter().map(Call::to_string).collect();
        assert_eq!(
            texts,
            [
                "set-msr 0x0 0x0 0x5",
                "set-msr 0x1 0x0 0x0",
                "set-msr 0x1 0x0 0x1",
                "set-msr 0x1 0x0 0x2",
                "set-msr 0x1 0x0 0x4",
            ]
        );
    }
}
