// SPDX-License-Identifier: GPL-2.0
//! The CPUs that a machine can be.
//!
//! The family, model and stepping are those by which Linux chooses its events, for a host and its
//! guests. Where the lines of the table come from:
//!
//! | column | source |
//! |---|---|
//! | family and model of Intel CPUs | Linux, arch/x86/include/asm/intel-family.h: `SKYLAKE_X`, `ICELAKE_X`, `SAPPHIRERAPIDS_X` |
//! | stepping | of a CPU that was sold; perf's tables of events (tools/perf/pmu-events, mapfile.csv) take model 55H up to stepping 4 for Skylake, from 5 on for Cascade Lake |
//! | family and model of AMD CPUs | PPR of 19H model 11H (Genoa), of 1AH model 02H (Turin); Linux, arch/x86/kernel/cpu/amd.c |
//! | version and numbers of counters, of architectural events | SDM volume 3, the sections on the PMUs of Skylake, Ice Lake and Sapphire Rapids; eight general purpose counters are those of a core without a second thread |
//! | width of the counters | SDM, CPUID leaf 0AH; APM volume 2, 13.2 |
//! | full-width writes | SDM volume 3, "Full-Width Writes to Performance Counter Registers" |
//! | VM exit saves IA32_PERF_GLOBAL_CTRL | Linux, KVM: `cpu_has_save_perf_global_ctrl()`, there from Sapphire Rapids on; SDM volume 3, "VM-Exit Controls" |
//! | store of a branch trace | SDM volume 3, "Debug Store (DS) Mechanism"; Linux, arch/x86/events/intel/bts.c, asks CPUID and IA32_MISC_ENABLE only |
//! | last branch records | SDM volume 3, "Last Branch Records"; those of Sapphire Rapids are architectural: Linux says "Architectural LBR" and "32-deep LBR" there at boot; those of CPUs before are not modelled |
//! | codes of events | perfmon, as in tools/perf/pmu-events: skylakex, icelakex, sapphirerapids; PPR for AMD |
//!
//! What is modelled of Zen 5 is what it has in common with Zen 4. The features beside the PMU are
//! those of the emulator's CPU.

use crate::amd;
use crate::intel;

/// How a CPU names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The family, as people and Linux write it.
    pub family: u32,
    /// The model, likewise.
    pub model: u32,
    /// The stepping.
    pub stepping: u32,
    /// What CPUID says in words.
    pub brand: &'static str,
}

impl Signature {
    /// CPUID leaf 1, EAX (SDM volume 2, APM volume 3).
    pub fn cpuid(&self) -> u32 {
        let (family, extended) = match self.family {
            family @ 0..=0xf => (family, 0),
            family => (0xf, family - 0xf),
        };
        extended << 20
            | (self.model >> 4) << 16
            | family << 8
            | (self.model & 0xf) << 4
            | self.stepping
    }
}

/// The PMU of a CPU, and what else there is about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pmu {
    /// AMD's.
    Amd(amd::Version),
    /// Intel's.
    Intel {
        /// The PMU.
        config: intel::Config,
        /// VM exit can save IA32_PERF_GLOBAL_CTRL.
        saves_global_ctrl: bool,
    },
}

/// A CPU.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on command lines.
    pub name: &'static str,
    /// How it names itself.
    pub signature: Signature,
    /// Its PMU.
    pub pmu: Pmu,
}

/// Skylake server.
pub static SKYLAKE: Profile = Profile {
    name: "skylake",
    signature: Signature {
        family: 6,
        model: 0x55,
        stepping: 4,
        brand: "Intel(R) Xeon(R) Skylake",
    },
    pmu: Pmu::Intel {
        config: intel::Config::SKYLAKE,
        saves_global_ctrl: false,
    },
};

/// Ice Lake server.
pub static ICELAKE: Profile = Profile {
    name: "icelake",
    signature: Signature {
        family: 6,
        model: 0x6a,
        stepping: 6,
        brand: "Intel(R) Xeon(R) Ice Lake",
    },
    pmu: Pmu::Intel {
        config: intel::Config::ICELAKE,
        saves_global_ctrl: false,
    },
};

/// Sapphire Rapids. Emerald and Granite Rapids have the same PMU.
pub static SAPPHIRE_RAPIDS: Profile = Profile {
    name: "sapphire-rapids",
    signature: Signature {
        family: 6,
        model: 0x8f,
        stepping: 8,
        brand: "Intel(R) Xeon(R) Sapphire Rapids",
    },
    pmu: Pmu::Intel {
        config: intel::Config::SAPPHIRE_RAPIDS,
        saves_global_ctrl: true,
    },
};

/// Genoa.
pub static ZEN4: Profile = Profile {
    name: "zen4",
    signature: Signature {
        family: 0x19,
        model: 0x11,
        stepping: 1,
        brand: "AMD EPYC Zen 4",
    },
    pmu: Pmu::Amd(amd::Version::PerfMonV2),
};

/// Turin.
pub static ZEN5: Profile = Profile {
    name: "zen5",
    signature: Signature {
        family: 0x1a,
        model: 0x02,
        stepping: 1,
        brand: "AMD EPYC Zen 5",
    },
    pmu: Pmu::Amd(amd::Version::PerfMonV2),
};

/// All of them.
pub static ALL: [&Profile; 5] = [&SKYLAKE, &ICELAKE, &SAPPHIRE_RAPIDS, &ZEN4, &ZEN5];

impl Profile {
    /// The CPU of this name, or what there is, among those that `is_there` says.
    pub fn named(
        name: &str,
        is_there: impl Fn(&Profile) -> bool,
    ) -> Result<&'static Profile, String> {
        let mut there = ALL.into_iter().filter(|profile| is_there(profile));
        there
            .clone()
            .find(|profile| profile.name == name)
            .ok_or_else(|| {
                let last = there.next_back().map_or("", |profile| profile.name);
                let names: Vec<_> = there.map(|profile| profile.name).collect();
                format!("no CPU '{name}': there are {} and {last}", names.join(", "))
            })
    }

    /// Whether it is AMD's.
    pub fn is_amd(&self) -> bool {
        matches!(self.pmu, Pmu::Amd(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when the extended family or model is lost.
    #[test]
    fn cpuid_has_the_signature_as_the_manuals_say() {
        assert_eq!(SKYLAKE.signature.cpuid(), 0x0005_0654);
        assert_eq!(ICELAKE.signature.cpuid(), 0x0006_06a6);
        assert_eq!(SAPPHIRE_RAPIDS.signature.cpuid(), 0x0008_06f8);
        assert_eq!(ZEN4.signature.cpuid(), 0x00a1_0f11);
        assert_eq!(ZEN5.signature.cpuid(), 0x00b0_0f21);
    }

    // Has to fail when a CPU of the other vendor is taken or named.
    #[test]
    fn a_name_is_known_or_refused_with_the_list() {
        let amd = |name| Profile::named(name, Profile::is_amd);
        assert_eq!(amd("zen5"), Ok(&ZEN5));
        assert_eq!(
            amd("icelake"),
            Err("no CPU 'icelake': there are zen4 and zen5".to_owned())
        );
        let error = Profile::named("8086", |_| true).unwrap_err();
        assert!(
            ALL.iter().all(|profile| error.contains(profile.name)),
            "{error}"
        );
    }

    // CPUID has room for 48 characters, the last of which is 0; QEMU splits options at commas.
    #[test]
    fn the_words_fit() {
        for profile in ALL {
            let brand = profile.signature.brand;
            assert!(brand.len() < 48 && !brand.contains(','), "{brand}");
        }
    }
}
