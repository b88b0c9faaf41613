// SPDX-License-Identifier: GPL-2.0

//! mvpmu: gives KVM guests the real performance monitoring unit (PMU).
//!
//! Data flows one way: KVM calls the [`provider`], which calls the [`switch`], which moves the
//! state of a vCPU through the registers of the [`vendor`] into the [`registers`].
//!
//! See Documentation/virt/kvm/x86/mvpmu.rst.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    kvm::mediated_pmu::Registration,
    prelude::*,
    sync::Arc,
    x86::cpu,
    ThisModule, //
};

mod capability;
mod lbr;
mod policy;
mod provider;
mod pt;
mod registers;
mod stats;
mod switch;
#[cfg(CONFIG_MVPMU_KUNIT_TEST)]
mod tests;
mod vendor;

use capability::{
    Host,
    Report, //
};
use lbr::Lbr;
use policy::{
    HostEvents,
    Mode, //
};
use provider::Provider;
use pt::Pt;
use stats::Totals;
use vendor::{
    Amd,
    Intel,
    Vendor, //
};

module! {
    type: Mvpmu,
    name: "mvpmu",
    authors: ["The mvpmu developers"],
    description: "Mediated PMU for KVM guests",
    license: "GPL",
    params: {
        enable_passthrough_pmu: bool {
            default: false,
            description: "Give new KVM guests the host's PMU (bool, default N)",
        },
        switch: Mode {
            default: crate::Mode::Auto,
            description: "When to switch the PMU: at each VM entry and exit (eager) or when it has to be (auto, default)",
        },
        host_events: HostEvents {
            default: crate::HostEvents::Refuse,
            description: "Events of the host that count in guests: not while a VM has the PMU (refuse, default), or whoever comes first (share), or before guests (prefer)",
        },
        lbr: Lbr {
            default: crate::Lbr::On,
            description: "Give guests the branch stack where the CPU can switch it, which is AMD's LbrExtV2 and Intel's architectural one (on, default) or not (off)",
        },
        pt: Pt {
            default: crate::Pt::Off,
            description: "Intel PT: guests have none (off, default), none and are part of the host's trace (system), or their own, and the host's trace stops for them (host_guest)",
        },
    },
}

/// The registration with KVM on CPUs of vendor `V`.
type Registered<V> = Pin<KBox<Registration<Provider<V>>>>;

/// What the module gives to guests.
enum Active {
    /// Nothing: it was not asked to.
    Nothing,
    /// AMD's PMU.
    Amd { _registration: Registered<Amd> },
    /// Intel's PMU.
    Intel { _registration: Registered<Intel> },
}

impl Active {
    /// Takes over the PMU, or says what is in the way.
    fn new(module: &'static ThisModule, host: &Host, provider: Parts<'_>) -> Result<Self> {
        if let Some(obstacle) = host.obstacle() {
            pr_err!("not enabled: {obstacle}\n");
            return Err(ENODEV);
        }

        match host.vendor() {
            cpu::Vendor::Amd => Ok(Self::Amd {
                _registration: provider.register(module, host)?,
            }),
            cpu::Vendor::Intel => Ok(Self::Intel {
                _registration: provider.register(module, host)?,
            }),
            cpu::Vendor::Other => Err(ENODEV),
        }
    }
}

/// What a provider is made of.
struct Parts<'a> {
    debugfs: &'a Dir,
    totals: &'a Arc<Totals>,
}

impl Parts<'_> {
    fn register<V: Vendor>(
        &self,
        module: &'static ThisModule,
        host: &Host,
    ) -> Result<Registered<V>> {
        let pt = pt::given(host.pt());
        let provider = Provider::new(self.debugfs.clone(), self.totals.clone(), pt);
        let registration = KBox::try_pin_init(Registration::new(module, provider), GFP_KERNEL)?;
        let (gp, fixed) = host.counters();

        pr_info!(
            "guests get the host's PMU: {}, {gp} counters, {fixed} fixed\n",
            V::NAME
        );
        Ok(registration)
    }
}

/// The module.
#[pin_data]
struct Mvpmu {
    // Dropped first and initialised last: VMs come and go while it exists.
    _active: Active,
    #[pin]
    _capability: File<Report>,
    #[pin]
    _stats: File<Arc<Totals>>,
    totals: Arc<Totals>,
    debugfs: Dir,
}

impl kernel::InPlaceModule for Mvpmu {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let wanted = module_parameters::enable_passthrough_pmu.value();
        let host = Host::probe();

        try_pin_init!(Self {
            debugfs: Dir::new(c"mvpmu"),
            totals: Arc::pin_init(Totals::new(), GFP_KERNEL)?,
            _capability <- debugfs.read_only_file(c"capability", Report { host, wanted }),
            _stats <- debugfs.read_callback_file(
                c"stats",
                totals.clone(),
                &|totals: &Arc<Totals>, f: &mut fmt::Formatter<'_>| totals.show(f),
            ),
            _active: if wanted {
                Active::new(module, &host, Parts { debugfs, totals })?
            } else {
                Active::Nothing
            },
        })
    }
}
