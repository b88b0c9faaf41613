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
    ThisModule, //
};

mod capability;
mod provider;
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
use provider::Provider;
use stats::Totals;
use vendor::{
    Amd,
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
    },
}

/// The module.
#[pin_data]
struct Mvpmu {
    // Dropped first and initialised last: VMs come and go while it exists.
    _registration: Option<Pin<KBox<Registration<Provider<Amd>>>>>,
    #[pin]
    _capability: File<Report>,
    #[pin]
    _stats: File<Arc<Totals>>,
    totals: Arc<Totals>,
    _debugfs: Dir,
}

/// Takes over the PMU, or says what is in the way.
fn register(
    module: &'static ThisModule,
    host: &Host,
    debugfs: &Dir,
    totals: &Arc<Totals>,
) -> Result<Pin<KBox<Registration<Provider<Amd>>>>> {
    if let Some(obstacle) = host.obstacle() {
        pr_err!("not enabled: {obstacle}\n");
        return Err(ENODEV);
    }

    let provider = Provider::new(debugfs.clone(), totals.clone());
    let registration = KBox::try_pin_init(Registration::new(module, provider), GFP_KERNEL)?;

    pr_info!(
        "guests get the host's PMU: {}, {} counters\n",
        Amd::NAME,
        host.gp_counters()
    );
    Ok(registration)
}

impl kernel::InPlaceModule for Mvpmu {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let wanted = module_parameters::enable_passthrough_pmu.value();
        let host = Host::probe();
        let debugfs = Dir::new(c"mvpmu");

        try_pin_init!(Self {
            _capability <- debugfs.read_only_file(c"capability", Report { host, wanted }),
            totals: Arc::pin_init(Totals::new(), GFP_KERNEL)?,
            _stats <- debugfs.read_callback_file(
                c"stats",
                totals.clone(),
                &|totals: &Arc<Totals>, f: &mut fmt::Formatter<'_>| totals.show(f),
            ),
            _registration: if wanted {
                Some(register(module, &host, &debugfs, totals)?)
            } else {
                None
            },
            _debugfs: debugfs,
        })
    }
}
