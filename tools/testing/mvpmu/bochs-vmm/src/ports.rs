// SPDX-License-Identifier: GPL-2.0

//! I/O ports: the console, the two that the runner knows, and what little of a
//! PC Linux looks for.

use std::ffi::c_void;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;

use crate::console;
use crate::single::SingleThread;
use crate::stop;

/// Bytes written here are the data stream out of L1.
const STREAM: u16 = 0xe9;
/// A value written here ends the run.
const EXIT: u16 = 0xf4;

const PIC_MASTER_DATA: u16 = 0x21;
const PIC_SLAVE_DATA: u16 = 0xa1;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u32 = 0xfe;
const NMI_STATUS: u16 = 0x61;
const RESET_CONTROL: u16 = 0xcf9;

struct Ports {
    /// Interrupt masks of the two PICs: they have nothing to mask, but Linux
    /// probes for them by writing these.
    pic_masks: [u8; 2],
    stream: Option<BufWriter<File>>,
    stream_failed: Option<String>,
}

static PORTS: SingleThread<Ports> = SingleThread::new(Ports {
    pic_masks: [0xff; 2],
    stream: None,
    stream_failed: None,
});

impl Ports {
    fn read(&self, port: u16) -> Option<u8> {
        Some(match port {
            PIC_MASTER_DATA => self.pic_masks[0],
            PIC_SLAVE_DATA => self.pic_masks[1],
            // Timer 2 has counted down, or Linux waits for it.
            NMI_STATUS => 0x20,
            STREAM => STREAM as u8,
            KEYBOARD_COMMAND => 0,
            // CMOS: midnight, 1 January 2000, as far as Linux can tell.
            0x71 => 0,
            // The rest of PIC, PIT, DMA page registers.
            0x20..=0xbf => 0,
            _ => return None,
        })
    }

    fn stream(&mut self, byte: u8) {
        if let Some(stream) = &mut self.stream {
            if let Err(error) = stream.write_all(&[byte]) {
                self.stream_failed.get_or_insert(error.to_string());
            }
        }
    }
}

/// Where the bytes of the data stream go.
pub fn set_stream(file: File) {
    PORTS.with(|ports| ports.stream = Some(BufWriter::with_capacity(1 << 16, file)));
}

/// Writes out what is buffered.
pub fn finish() -> Result<(), String> {
    PORTS.with(|ports| {
        if let Some(Err(error)) = ports.stream.as_mut().map(Write::flush) {
            ports.stream_failed.get_or_insert(error.to_string());
        }
        match ports.stream_failed.take() {
            Some(error) => Err(format!("the data stream is incomplete: {error}")),
            None => Ok(()),
        }
    })
}

fn all_ones(len: u32) -> u32 {
    u32::MAX >> (32 - 8 * len.clamp(1, 4))
}

/// Replaces `bx_devices_c::inp(port, len)`.
#[export_name = "_ZN12bx_devices_c3inpEtj"]
extern "C-unwind" fn input(_this: *mut c_void, port: u16, len: u32) -> u32 {
    if (console::PORT..console::PORT + console::PORTS).contains(&port) {
        return u32::from(console::read(port - console::PORT));
    }
    PORTS
        .with(|ports| ports.read(port))
        .map_or(all_ones(len), u32::from)
}

/// Replaces `bx_devices_c::outp(port, value, len)`.
#[export_name = "_ZN12bx_devices_c4outpEtjj"]
extern "C-unwind" fn output(_this: *mut c_void, port: u16, value: u32, _len: u32) {
    if (console::PORT..console::PORT + console::PORTS).contains(&port) {
        console::write(port - console::PORT, value as u8);
        return;
    }
    match port {
        PIC_MASTER_DATA => PORTS.with(|ports| ports.pic_masks[0] = value as u8),
        PIC_SLAVE_DATA => PORTS.with(|ports| ports.pic_masks[1] = value as u8),
        STREAM => PORTS.with(|ports| ports.stream(value as u8)),
        EXIT => stop::now(stop::Reason::ExitPort(value)),
        KEYBOARD_COMMAND if value == KEYBOARD_RESET => stop::now(stop::Reason::Reset),
        RESET_CONTROL => stop::now(stop::Reason::Reset),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_ports_read_all_ones_of_their_width() {
        assert_eq!(all_ones(1), 0xff);
        assert_eq!(all_ones(2), 0xffff);
        assert_eq!(all_ones(4), 0xffff_ffff);
    }
}
