//! Device properties, in the two layouts that HIP has had, and device attributes.

use super::engine::Processor;
use super::memory::machine_memory;
use std::ffi::{c_char, c_int};

/// `hipDeviceProp_t` up to HIP 5, `hipDeviceProp_tR0000` since.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PropertiesR0000 {
    pub name: [c_char; 256],
    pub total_global_mem: usize,
    pub shared_mem_per_block: usize,
    pub regs_per_block: c_int,
    pub warp_size: c_int,
    pub max_threads_per_block: c_int,
    pub max_threads_dim: [c_int; 3],
    pub max_grid_size: [c_int; 3],
    pub clock_rate: c_int,
    pub memory_clock_rate: c_int,
    pub memory_bus_width: c_int,
    pub total_const_mem: usize,
    pub major: c_int,
    pub minor: c_int,
    pub multi_processor_count: c_int,
    pub l2_cache_size: c_int,
    pub max_threads_per_multi_processor: c_int,
    pub compute_mode: c_int,
    pub clock_instruction_rate: c_int,
    pub arch: u32,
    pub concurrent_kernels: c_int,
    pub pci_domain_id: c_int,
    pub pci_bus_id: c_int,
    pub pci_device_id: c_int,
    pub max_shared_memory_per_multi_processor: usize,
    pub is_multi_gpu_board: c_int,
    pub can_map_host_memory: c_int,
    pub gcn_arch: c_int,
    pub gcn_arch_name: [c_char; 256],
    pub integrated: c_int,
    pub cooperative_launch: c_int,
    pub cooperative_multi_device_launch: c_int,
    pub max_texture_1d_linear: c_int,
    pub max_texture_1d: c_int,
    pub max_texture_2d: [c_int; 2],
    pub max_texture_3d: [c_int; 3],
    pub hdp_mem_flush_cntl: usize,
    pub hdp_reg_flush_cntl: usize,
    pub mem_pitch: usize,
    pub texture_alignment: usize,
    pub texture_pitch_alignment: usize,
    pub kernel_exec_timeout_enabled: c_int,
    pub ecc_enabled: c_int,
    pub tcc_driver: c_int,
    pub cooperative_unmatched: [c_int; 4],
    pub is_large_bar: c_int,
    pub asic_revision: c_int,
    pub managed_memory: c_int,
    pub direct_managed_mem_access_from_host: c_int,
    pub concurrent_managed_access: c_int,
    pub pageable_memory_access: c_int,
    pub pageable_memory_access_uses_host_page_tables: c_int,
}

/// `hipDeviceProp_tR0600`: `hipDeviceProp_t` from HIP 6 on.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PropertiesR0600 {
    pub name: [c_char; 256],
    pub uuid: [c_char; 16],
    pub luid: [c_char; 8],
    pub luid_device_node_mask: u32,
    pub total_global_mem: usize,
    pub shared_mem_per_block: usize,
    pub regs_per_block: c_int,
    pub warp_size: c_int,
    pub mem_pitch: usize,
    pub max_threads_per_block: c_int,
    pub max_threads_dim: [c_int; 3],
    pub max_grid_size: [c_int; 3],
    pub clock_rate: c_int,
    pub total_const_mem: usize,
    pub major: c_int,
    pub minor: c_int,
    pub texture_alignment: usize,
    pub texture_pitch_alignment: usize,
    pub device_overlap: c_int,
    pub multi_processor_count: c_int,
    pub kernel_exec_timeout_enabled: c_int,
    pub integrated: c_int,
    pub can_map_host_memory: c_int,
    pub compute_mode: c_int,
    /// From `maxTexture1D` to `maxSurfaceCubemapLayered`: textures and surfaces are not emulated.
    pub textures: [c_int; 40],
    pub surface_alignment: usize,
    pub concurrent_kernels: c_int,
    pub ecc_enabled: c_int,
    pub pci_bus_id: c_int,
    pub pci_device_id: c_int,
    pub pci_domain_id: c_int,
    pub tcc_driver: c_int,
    pub async_engine_count: c_int,
    pub unified_addressing: c_int,
    pub memory_clock_rate: c_int,
    pub memory_bus_width: c_int,
    pub l2_cache_size: c_int,
    pub persisting_l2_cache_max_size: c_int,
    pub max_threads_per_multi_processor: c_int,
    pub stream_priorities_supported: c_int,
    pub global_l1_cache_supported: c_int,
    pub local_l1_cache_supported: c_int,
    pub shared_mem_per_multiprocessor: usize,
    pub regs_per_multiprocessor: c_int,
    pub managed_memory: c_int,
    pub is_multi_gpu_board: c_int,
    pub multi_gpu_board_group_id: c_int,
    pub host_native_atomic_supported: c_int,
    pub single_to_double_precision_perf_ratio: c_int,
    pub pageable_memory_access: c_int,
    pub concurrent_managed_access: c_int,
    pub compute_preemption_supported: c_int,
    pub can_use_host_pointer_for_registered_mem: c_int,
    pub cooperative_launch: c_int,
    pub cooperative_multi_device_launch: c_int,
    pub shared_mem_per_block_optin: usize,
    pub pageable_memory_access_uses_host_page_tables: c_int,
    pub direct_managed_mem_access_from_host: c_int,
    pub max_blocks_per_multi_processor: c_int,
    pub access_policy_max_window_size: c_int,
    pub reserved_shared_mem_per_block: usize,
    pub host_register_supported: c_int,
    pub sparse_array_supported: c_int,
    pub host_register_read_only_supported: c_int,
    pub timeline_semaphore_interop_supported: c_int,
    pub memory_pools_supported: c_int,
    pub gpu_direct_rdma_supported: c_int,
    pub gpu_direct_rdma_flush_writes_options: u32,
    pub gpu_direct_rdma_writes_ordering: c_int,
    pub memory_pool_supported_handle_types: u32,
    pub deferred_mapping_array_supported: c_int,
    pub ipc_event_supported: c_int,
    pub cluster_launch: c_int,
    pub unified_function_pointers: c_int,
    pub reserved: [c_int; 63],
    pub hip_reserved: [c_int; 32],
    pub gcn_arch_name: [c_char; 256],
    pub max_shared_memory_per_multi_processor: usize,
    pub clock_instruction_rate: c_int,
    pub arch: u32,
    pub hdp_mem_flush_cntl: usize,
    pub hdp_reg_flush_cntl: usize,
    pub cooperative_unmatched: [c_int; 4],
    pub is_large_bar: c_int,
    pub asic_revision: c_int,
}

const WARP: c_int = 64;
const THREADS_OF_BLOCK: c_int = 1024;
const THREADS_OF_CU: c_int = 2048;
/// A workgroup of one wave on each slot for waves.
const BLOCKS_OF_CU: c_int = 32;
const REGISTERS: c_int = 65_536;
const REGISTERS_OF_CU: c_int = 131_072;
/// Grids are counted in work-items, whose number along a dimension is below 2^32; HIP reports 2^31 - 1.
const GRID: [c_int; 3] = [c_int::MAX, 65_536, 65_536];
const BUS_WIDTH: c_int = 8192;
const L2_BYTES: c_int = 4 << 20;
const WALL_CLOCK_KHZ: c_int = 100_000;
const ALIGNMENT: usize = 256;
const PITCH: usize = c_int::MAX as usize;

/// `hipDeviceArch_t`: what code may use. Bits in the order of the header; these processors lack surfaces and kernels
/// that launch kernels.
const ARCH: u32 = {
    const FUNNEL_SHIFT: u32 = 1 << 11;
    const SURFACES: u32 = 1 << 14;
    const DYNAMIC_PARALLELISM: u32 = 1 << 16;
    0x1_ffff & !(FUNNEL_SHIFT | SURFACES | DYNAMIC_PARALLELISM)
};

fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    chars.iter_mut().zip(text.bytes().take(N - 1)).for_each(|(to, from)| *to = from as c_char);
    chars
}

fn number(bytes: usize) -> c_int {
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}

/// A value whose unset fields are 0.
///
/// # Safety
/// Zeros must be a value of the type.
unsafe fn zeroed<T>() -> T {
    // SAFETY: the caller vouches for it.
    unsafe { std::mem::zeroed() }
}

impl PropertiesR0000 {
    pub fn of(processor: Processor) -> Self {
        let (major, minor) = processor.capability();
        let lds = processor.lds_bytes() as usize;
        PropertiesR0000 {
            name: text(processor.product()),
            total_global_mem: machine_memory().1,
            shared_mem_per_block: lds,
            regs_per_block: REGISTERS,
            warp_size: WARP,
            max_threads_per_block: THREADS_OF_BLOCK,
            max_threads_dim: [THREADS_OF_BLOCK; 3],
            max_grid_size: GRID,
            clock_rate: processor.clock_khz(),
            memory_clock_rate: processor.memory_clock_khz(),
            memory_bus_width: BUS_WIDTH,
            total_const_mem: c_int::MAX as usize,
            major,
            minor,
            multi_processor_count: processor.compute_units() as c_int,
            l2_cache_size: L2_BYTES,
            max_threads_per_multi_processor: THREADS_OF_CU,
            clock_instruction_rate: WALL_CLOCK_KHZ,
            arch: ARCH,
            concurrent_kernels: 1,
            max_shared_memory_per_multi_processor: lds,
            can_map_host_memory: 1,
            gcn_arch: match processor {
                Processor::Gfx942 => 942,
                Processor::Gfx950 => 950,
            },
            gcn_arch_name: text(processor.target_id()),
            cooperative_launch: 1,
            mem_pitch: PITCH,
            texture_alignment: ALIGNMENT,
            texture_pitch_alignment: ALIGNMENT,
            ecc_enabled: 1,
            is_large_bar: 1,
            managed_memory: 1,
            direct_managed_mem_access_from_host: 1,
            concurrent_managed_access: 1,
            // SAFETY: numbers and arrays of numbers may be zero.
            ..unsafe { zeroed() }
        }
    }
}

impl PropertiesR0600 {
    pub fn of(processor: Processor) -> Self {
        let (major, minor) = processor.capability();
        let lds = processor.lds_bytes() as usize;
        PropertiesR0600 {
            name: text(processor.product()),
            uuid: text::<17>(uuid(processor))[..16].try_into().unwrap_or([0; 16]),
            total_global_mem: machine_memory().1,
            shared_mem_per_block: lds,
            regs_per_block: REGISTERS,
            warp_size: WARP,
            mem_pitch: PITCH,
            max_threads_per_block: THREADS_OF_BLOCK,
            max_threads_dim: [THREADS_OF_BLOCK; 3],
            max_grid_size: GRID,
            clock_rate: processor.clock_khz(),
            total_const_mem: c_int::MAX as usize,
            major,
            minor,
            texture_alignment: ALIGNMENT,
            texture_pitch_alignment: ALIGNMENT,
            device_overlap: 1,
            multi_processor_count: processor.compute_units() as c_int,
            can_map_host_memory: 1,
            surface_alignment: ALIGNMENT,
            concurrent_kernels: 1,
            ecc_enabled: 1,
            async_engine_count: 1,
            unified_addressing: 1,
            memory_clock_rate: processor.memory_clock_khz(),
            memory_bus_width: BUS_WIDTH,
            l2_cache_size: L2_BYTES,
            max_threads_per_multi_processor: THREADS_OF_CU,
            stream_priorities_supported: 1,
            global_l1_cache_supported: 1,
            local_l1_cache_supported: 1,
            shared_mem_per_multiprocessor: lds,
            regs_per_multiprocessor: REGISTERS_OF_CU,
            managed_memory: 1,
            host_native_atomic_supported: 1,
            single_to_double_precision_perf_ratio: 1,
            concurrent_managed_access: 1,
            can_use_host_pointer_for_registered_mem: 1,
            cooperative_launch: 1,
            shared_mem_per_block_optin: lds,
            direct_managed_mem_access_from_host: 1,
            max_blocks_per_multi_processor: BLOCKS_OF_CU,
            host_register_supported: 1,
            memory_pools_supported: 1,
            gcn_arch_name: text(processor.target_id()),
            max_shared_memory_per_multi_processor: lds,
            clock_instruction_rate: WALL_CLOCK_KHZ,
            arch: ARCH,
            is_large_bar: 1,
            // SAFETY: numbers and arrays of numbers may be zero.
            ..unsafe { zeroed() }
        }
    }
}

/// 16 characters that tell devices apart.
pub(super) const fn uuid(processor: Processor) -> &'static str {
    match processor {
        Processor::Gfx942 => "emulated-cdna-3 ",
        Processor::Gfx950 => "emulated-cdna-4 ",
    }
}

/// The value of a `hipDeviceAttribute_t`; the numbers are the same in HIP 5, 6 and 7. `None` for one that does not
/// exist or is no number.
pub(super) fn attribute(processor: Processor, attribute: u32) -> Option<c_int> {
    let (major, minor) = processor.capability();
    let lds = processor.lds_bytes() as c_int;
    Some(match attribute {
        // ECC; mapped host memory; host pointers of registered memory; concurrent kernels and managed access.
        0 | 3 | 4 | 8 | 9 => 1,
        // Cooperative launches, on one device.
        10 => 1,
        // Copies beside kernels; direct access to managed memory; L1 cache; native atomics on host memory.
        2 | 12 | 13 | 14 | 15 | 20 => 1,
        // Access policies; compute mode; preemption; several devices at once; integrated; board of several; time
        // limit.
        1 | 6 | 7 | 11 | 16 | 17 | 18 => 0,
        5 => processor.clock_khz(),
        19 => L2_BYTES,
        23 => major,
        24 => 1,
        25 => BLOCKS_OF_CU,
        26..=28 => THREADS_OF_BLOCK,
        29 => GRID[0],
        30 => GRID[1],
        31 => GRID[2],
        // Surfaces and textures, which are not emulated.
        32..=54 => 0,
        55 | 56 => THREADS_OF_BLOCK,
        57 => THREADS_OF_CU,
        58 => number(PITCH),
        59 => BUS_WIDTH,
        60 => processor.memory_clock_khz(),
        61 => minor,
        62 => 0,
        63 => processor.compute_units() as c_int,
        // Pageable memory; page tables; PCI ids; persisting L2.
        65..=70 => 0,
        71 => REGISTERS,
        72 => REGISTERS_OF_CU,
        73 => 0,
        74..=76 => lds,
        77 | 78 => 1,
        79 | 81 | 82 => ALIGNMENT as c_int,
        80 => 0,
        83 => c_int::MAX,
        84 => number(machine_memory().1),
        85 => 1,
        87 => WARP,
        // Memory pools; no virtual memory management; host memory can be registered; no shareable handles.
        88 => 1,
        89 => 0,
        90 => 1,
        91 => 0,
        10_000 => WALL_CLOCK_KHZ,
        10_002 => lds,
        10_003 => match processor {
            Processor::Gfx942 => 942,
            Processor::Gfx950 => 950,
        },
        10_007..=10_010 => 0,
        10_011 => 1,
        10_012..=10_014 => 0,
        10_015 => processor.compute_units() as c_int,
        10_016 => 1,
        10_017 => WALL_CLOCK_KHZ,
        10_018 => 8,
        10_019 => 512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Places in `hipDeviceProp_t` of HIP 5.2's header, as a C compiler has them.
    #[test]
    fn the_older_properties_lie_where_the_header_of_hip_5_has_them() {
        assert_eq!(size_of::<PropertiesR0000>(), 792);
        let places = [
            (offset_of!(PropertiesR0000, total_global_mem), 256),
            (offset_of!(PropertiesR0000, shared_mem_per_block), 264),
            (offset_of!(PropertiesR0000, regs_per_block), 272),
            (offset_of!(PropertiesR0000, warp_size), 276),
            (offset_of!(PropertiesR0000, max_threads_per_block), 280),
            (offset_of!(PropertiesR0000, max_threads_dim), 284),
            (offset_of!(PropertiesR0000, max_grid_size), 296),
            (offset_of!(PropertiesR0000, clock_rate), 308),
            (offset_of!(PropertiesR0000, total_const_mem), 320),
            (offset_of!(PropertiesR0000, major), 328),
            (offset_of!(PropertiesR0000, multi_processor_count), 336),
            (offset_of!(PropertiesR0000, arch), 356),
            (offset_of!(PropertiesR0000, max_shared_memory_per_multi_processor), 376),
            (offset_of!(PropertiesR0000, gcn_arch), 392),
            (offset_of!(PropertiesR0000, gcn_arch_name), 396),
            (offset_of!(PropertiesR0000, integrated), 652),
            (offset_of!(PropertiesR0000, max_texture_1d_linear), 664),
            (offset_of!(PropertiesR0000, mem_pitch), 712),
            (offset_of!(PropertiesR0000, asic_revision), 768),
            (offset_of!(PropertiesR0000, managed_memory), 772),
            (offset_of!(PropertiesR0000, pageable_memory_access_uses_host_page_tables), 788),
        ];
        for (place, expected) in places {
            assert_eq!(place, expected);
        }
    }

    /// Places in `hipDeviceProp_tR0600` of ROCm 6 and 7.
    #[test]
    fn the_newer_properties_lie_where_the_header_of_hip_6_has_them() {
        assert_eq!(size_of::<PropertiesR0600>(), 1472);
        let places = [
            (offset_of!(PropertiesR0600, uuid), 256),
            (offset_of!(PropertiesR0600, luid_device_node_mask), 280),
            (offset_of!(PropertiesR0600, total_global_mem), 288),
            (offset_of!(PropertiesR0600, warp_size), 308),
            (offset_of!(PropertiesR0600, mem_pitch), 312),
            (offset_of!(PropertiesR0600, max_threads_per_block), 320),
            (offset_of!(PropertiesR0600, clock_rate), 348),
            (offset_of!(PropertiesR0600, major), 360),
            (offset_of!(PropertiesR0600, texture_alignment), 368),
            (offset_of!(PropertiesR0600, multi_processor_count), 388),
            (offset_of!(PropertiesR0600, textures), 408),
            (offset_of!(PropertiesR0600, surface_alignment), 568),
            (offset_of!(PropertiesR0600, concurrent_kernels), 576),
            (offset_of!(PropertiesR0600, memory_clock_rate), 608),
            (offset_of!(PropertiesR0600, shared_mem_per_multiprocessor), 640),
            (offset_of!(PropertiesR0600, regs_per_multiprocessor), 648),
            (offset_of!(PropertiesR0600, cooperative_launch), 688),
            (offset_of!(PropertiesR0600, shared_mem_per_block_optin), 696),
            (offset_of!(PropertiesR0600, reserved_shared_mem_per_block), 720),
            (offset_of!(PropertiesR0600, memory_pools_supported), 744),
            (offset_of!(PropertiesR0600, unified_function_pointers), 776),
            (offset_of!(PropertiesR0600, gcn_arch_name), 1160),
            (offset_of!(PropertiesR0600, max_shared_memory_per_multi_processor), 1416),
            (offset_of!(PropertiesR0600, arch), 1428),
            (offset_of!(PropertiesR0600, hdp_mem_flush_cntl), 1432),
            (offset_of!(PropertiesR0600, asic_revision), 1468),
        ];
        for (place, expected) in places {
            assert_eq!(place, expected);
        }
    }

    #[test]
    fn attributes_say_what_the_properties_say() {
        for processor in [Processor::Gfx942, Processor::Gfx950] {
            let all = PropertiesR0600::of(processor);
            let value = |number| attribute(processor, number).unwrap();
            assert_eq!(value(63), all.multi_processor_count);
            assert_eq!(value(87), all.warp_size);
            assert_eq!(value(56), all.max_threads_per_block);
            assert_eq!(value(74) as usize, all.shared_mem_per_block);
            assert_eq!((value(23), value(61)), (all.major, all.minor));
            assert_eq!(value(5), all.clock_rate);
            assert_eq!(attribute(processor, 64), None);
            assert_eq!(attribute(processor, 9999), None);
        }
    }
}
