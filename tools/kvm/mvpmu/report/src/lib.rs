// SPDX-License-Identifier: GPL-2.0

//! The report that the bootable image leaves, and what can be read from it.
//!
//! The image writes it, `mvpmu-report` reads it.

pub mod args;
pub mod compare;
pub mod file;
mod reference;
pub mod schema;
pub mod spread;
mod table;
pub mod text;

pub use schema::Report;
