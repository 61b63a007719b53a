//! What the GPU runtimes of this machine say of themselves and of their devices.

use accuracy_core::device::gpu::{self, Device, GpuError, Kind, RuntimeInfo};

/// What a runtime said.
pub struct Found {
    pub kind: Kind,
    pub runtime: Result<RuntimeInfo, GpuError>,
    pub devices: Result<Vec<Device>, GpuError>,
}

/// Asks both runtimes. No context is made on any device.
pub fn devices() -> Vec<Found> {
    let ask = |kind| Found { kind, runtime: gpu::runtime(kind), devices: gpu::devices(kind) };
    [Kind::Hip, Kind::Cuda].map(ask).into()
}
