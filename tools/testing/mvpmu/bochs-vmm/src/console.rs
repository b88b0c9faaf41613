// SPDX-License-Identifier: GPL-2.0

//! ttyS0: a 16550A whose output is stdout and, when somebody is there, whose
//! input is stdin.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::c_void;
use std::io;
use std::io::Write;

use vm_superio::serial::NoEvents;
use vm_superio::Serial;
use vm_superio::Trigger;

use crate::cpus;
use crate::ioapic;
use crate::single::SingleThread;
use crate::stop;
use crate::terminal;
use crate::timers;

/// First port of COM1.
pub const PORT: u16 = 0x3f8;
/// How many ports it has.
pub const PORTS: u16 = 8;
/// Its interrupt.
pub const IRQ: usize = 4;

/// Ticks between two looks at stdin: a millisecond.
const INPUT_PERIOD: u64 = timers::TSC_MHZ as u64 * 1000;
/// Ctrl-A, then `x`, ends the run (the keys of QEMU's console).
const ESCAPE: u8 = 1;

/// Remembers that the UART wants an interrupt: it is raised after the access,
/// when the UART is no longer lent.
struct Wanted(Cell<bool>);

impl Trigger for Wanted {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

/// stdout, flushed at the end of a line or, for a person, at once.
struct Output {
    eager: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // stdout is line buffered. Nobody listening is no reason to stop.
        let _ = io::stdout().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.eager {
            let _ = io::stdout().flush();
        }
        Ok(())
    }
}

struct Uart {
    serial: Serial<Wanted, NoEvents, Output>,
    escaped: bool,
}

static UART: SingleThread<Option<Uart>> = SingleThread::new(None);

impl Uart {
    fn new(eager: bool) -> Self {
        Self {
            serial: Serial::new(Wanted(Cell::new(false)), Output { eager }),
            escaped: false,
        }
    }

    fn take_interrupt(&self) -> bool {
        self.serial.interrupt_evt().0.take()
    }

    /// Passes typed bytes on; false when they ask for the end.
    fn typed(&mut self, bytes: &[u8]) -> bool {
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match (self.escaped, byte) {
                (true, b'x') => return false,
                (false, ESCAPE) => self.escaped = true,
                _ => {
                    self.escaped = false;
                    passed.push(byte);
                }
            }
        }
        // What does not fit is lost, as on a real line.
        let _ = self.serial.enqueue_raw_bytes(&passed);
        true
    }

    fn room(&self) -> usize {
        self.serial.fifo_capacity()
    }
}

/// Makes the console; with `interactive`, stdin is its input.
pub fn create(interactive: bool) {
    UART.with(|uart| *uart = Some(Uart::new(interactive)));
    if interactive {
        terminal::raw();
        timers::every(INPUT_PERIOD, look_at_input);
    }
}

fn with_uart<R>(f: impl FnOnce(&mut Uart) -> R) -> Option<R> {
    let (result, interrupt) = UART.with(|uart| {
        let uart = uart.as_mut()?;
        let result = f(uart);
        Some((result, uart.take_interrupt()))
    })?;
    if interrupt {
        ioapic::pulse(IRQ);
    }
    Some(result)
}

unsafe extern "C-unwind" fn look_at_input(_argument: *mut c_void) {
    let room = with_uart(|uart| uart.room()).unwrap_or(0);
    let mut bytes = [0u8; 64];
    // A machine that waits does so in about real time, for the person's sake and the host's.
    let len = terminal::read(&mut bytes[..room.min(64)], i32::from(cpus::all_wait()));
    if len > 0 && with_uart(|uart| uart.typed(&bytes[..len])) == Some(false) {
        stop::now(stop::Reason::ConsoleEscape);
    }
}

/// Somebody types this.
pub fn type_bytes(bytes: &[u8]) {
    with_uart(|uart| uart.typed(bytes));
}

/// Reads a port.
pub fn read(offset: u16) -> u8 {
    with_uart(|uart| uart.serial.read(offset as u8)).unwrap_or(0xff)
}

/// Writes a port.
pub fn write(offset: u16, value: u8) {
    with_uart(|uart| uart.serial.write(offset as u8, value).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(uart: &mut Uart) -> Vec<u8> {
        let mut bytes = Vec::new();
        while uart.serial.read(5) & 1 != 0 {
            bytes.push(uart.serial.read(0));
        }
        bytes
    }

    #[test]
    fn typed_bytes_arrive_with_an_interrupt() {
        let mut uart = Uart::new(false);
        uart.serial.write(1, 1).unwrap();
        assert!(uart.typed(b"ls\r"));
        assert!(uart.take_interrupt());
        assert!(!uart.take_interrupt());
        assert_eq!(received(&mut uart), b"ls\r");
    }

    #[test]
    fn ctrl_a_x_asks_for_the_end_also_in_two_pieces() {
        let mut uart = Uart::new(false);
        assert!(uart.typed(b"a\x01"));
        assert!(!uart.typed(b"x"));
    }

    #[test]
    fn ctrl_a_twice_sends_one() {
        let mut uart = Uart::new(false);
        assert!(uart.typed(b"\x01\x01x"));
        assert_eq!(received(&mut uart), b"\x01x");
    }
}
