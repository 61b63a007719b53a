//! What callers ask of the launches that begin while they run a function: the order of waves, and a closer look.

use super::workgroup::WaveOrder;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

thread_local! {
    static ORDER: Cell<WaveOrder> = const { Cell::new(WaveOrder::FirstToLast) };
}

/// Runs `f`, in whose launches on this thread the waves of each workgroup take turns in this order.
pub fn with_order<T>(order: WaveOrder, f: impl FnOnce() -> T) -> T {
    /// Sets back what was there before, also when `f` panics.
    struct Before(WaveOrder);
    impl Drop for Before {
        fn drop(&mut self) {
            ORDER.set(self.0);
        }
    }
    let _before = Before(ORDER.replace(order));
    f()
}

/// The order in which waves take turns in this thread's launches.
pub(super) fn wave_order() -> WaveOrder {
    ORDER.get()
}

/// How many callers want launches to be scrutinised.
static SCRUTINISED: AtomicUsize = AtomicUsize::new(0);

/// Runs `f`, in whose launches the emulated device is watched for more than what it computes: [`super::scrutiny`] and
/// [`super::rerun`]. It takes more than twice the time.
pub fn scrutinised<T>(f: impl FnOnce() -> T) -> T {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            SCRUTINISED.fetch_sub(1, SeqCst);
        }
    }
    SCRUTINISED.fetch_add(1, SeqCst);
    let _ends = Ends;
    f()
}

/// Whether a launch that begins now is to be scrutinised.
pub(super) fn is_scrutinised() -> bool {
    SCRUTINISED.load(SeqCst) > 0
}
