//! Global wave synchronisation (GWS): 64 resources with which the waves of all workgroups of a launch wait for one another.
//! A barrier of a cooperative grid (`grid.sync()` of HIP) is resource 0.
//!
//! Source: AMD's ISA documents of gfx9 on `DS_GWS_*`. A resource has a counter. A barrier is initialised with one less than
//! the waves it is for: the wave that finds the counter at zero opens it, which lets all go on that came before, and sets
//! the counter anew. As a semaphore, the counter is what waves may still take.

use std::sync::{Mutex, MutexGuard};

/// Resources of a device.
pub const RESOURCES: usize = 64;

/// The answer to a wave that asks whether it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It goes on.
    Passes,
    /// It has to ask again, with this ticket.
    Waits(Ticket),
}

/// Stands for a wave that waits: how often its barrier had opened when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug, Default)]
struct Resource {
    counter: u32,
    /// How often the barrier has opened.
    opened: u64,
    /// Waves that wait for the semaphore.
    waiting: u32,
}

/// The resources of a launch. `None` is one that nothing has initialised.
#[derive(Debug)]
pub struct GlobalSync {
    resources: Mutex<[Option<Resource>; RESOURCES]>,
}

impl Default for GlobalSync {
    fn default() -> GlobalSync {
        GlobalSync { resources: Mutex::new([None; RESOURCES]) }
    }
}

impl GlobalSync {
    fn lock(&self) -> MutexGuard<'_, [Option<Resource>; RESOURCES]> {
        self.resources.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Calls `f` with a resource; `None` if nothing has initialised it.
    fn with<T>(&self, resource: usize, f: impl FnOnce(&mut Resource) -> T) -> Option<T> {
        self.lock()[resource % RESOURCES].as_mut().map(f)
    }

    /// Sets the counter of a resource.
    pub fn initialise(&self, resource: usize, counter: u32) {
        self.lock()[resource % RESOURCES].get_or_insert_default().counter = counter;
    }

    /// A wave comes to a barrier, or asks again with its ticket. The wave that opens the barrier sets its counter to
    /// `others`.
    pub fn barrier(&self, resource: usize, ticket: Option<Ticket>, others: u32) -> Option<Asked> {
        self.with(resource, |resource| match ticket {
            Some(Ticket(came)) if came != resource.opened => Asked::Passes,
            Some(ticket) => Asked::Waits(ticket),
            None if resource.counter == 0 => {
                (resource.counter, resource.opened) = (others, resource.opened + 1);
                Asked::Passes
            }
            None => {
                resource.counter -= 1;
                Asked::Waits(Ticket(resource.opened))
            }
        })
    }

    /// Adds to the counter of a semaphore.
    pub fn release(&self, resource: usize, count: u32) -> Option<()> {
        self.with(resource, |resource| resource.counter = resource.counter.saturating_add(count))
    }

    /// Lets all waves go on that wait for a semaphore.
    pub fn release_all(&self, resource: usize) -> Option<()> {
        self.with(resource, |resource| resource.counter = resource.counter.max(resource.waiting))
    }

    /// A wave takes one from the counter of a semaphore, or asks again with its ticket.
    pub fn take(&self, resource: usize, ticket: Option<Ticket>) -> Option<Asked> {
        self.with(resource, |resource| {
            if ticket.is_none() {
                resource.waiting += 1;
            }
            match resource.counter.checked_sub(1) {
                Some(left) => {
                    (resource.counter, resource.waiting) = (left, resource.waiting.saturating_sub(1));
                    Asked::Passes
                }
                None => Asked::Waits(Ticket(0)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_opens_when_the_last_wave_comes_and_can_be_used_again() {
        let sync = GlobalSync::default();
        assert_eq!(sync.barrier(3, None, 2), None);
        sync.initialise(3, 2);
        for _ in 0..3 {
            let Some(Asked::Waits(first)) = sync.barrier(3, None, 2) else {
                panic!("the first wave has to wait")
            };
            let Some(Asked::Waits(second)) = sync.barrier(3, None, 2) else {
                panic!("the second wave has to wait")
            };
            assert_eq!(sync.barrier(3, Some(first), 2), Some(Asked::Waits(first)));
            assert_eq!(sync.barrier(3, None, 2), Some(Asked::Passes));
            assert_eq!(sync.barrier(3, Some(second), 2), Some(Asked::Passes));
            assert_eq!(sync.barrier(3, Some(first), 2), Some(Asked::Passes));
        }
    }

    #[test]
    fn a_semaphore_lets_as_many_waves_go_on_as_were_released() {
        let sync = GlobalSync::default();
        sync.initialise(0, 1);
        assert_eq!(sync.take(0, None), Some(Asked::Passes));
        let Some(Asked::Waits(ticket)) = sync.take(0, None) else { panic!("the counter is zero") };
        let Some(Asked::Waits(_)) = sync.take(0, None) else { panic!("the counter is zero") };
        sync.release_all(0);
        for _ in 0..2 {
            assert_eq!(sync.take(0, Some(ticket)), Some(Asked::Passes));
        }
        sync.release(0, 2);
        assert_eq!(sync.take(0, None), Some(Asked::Passes));
        assert_eq!(sync.take(0, None), Some(Asked::Passes));
        assert!(matches!(sync.take(0, None), Some(Asked::Waits(_))));
    }
}
