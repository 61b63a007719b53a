//! The floating-point control register of the processor that emulates: what a launcher did to it must not change what a
//! kernel computes.

/// While it lives, this thread rounds to nearest even, keeps denormals and raises no signals.
pub struct Plain {
    before: Control,
}

#[cfg(target_arch = "x86_64")]
type Control = u32;
#[cfg(target_arch = "aarch64")]
type Control = u64;

/// The register's value after a reset.
#[cfg(target_arch = "x86_64")]
const PLAIN: Control = 0x1f80;
#[cfg(target_arch = "aarch64")]
const PLAIN: Control = 0;

impl Plain {
    pub fn set() -> Plain {
        let before = read();
        write(PLAIN);
        Plain { before }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
fn read() -> Control {
    let mut value = 0_u32;
    // SAFETY: stores the register's 32 bits at the address of a local of that size.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
    value
}

#[cfg(target_arch = "x86_64")]
fn write(value: Control) {
    // SAFETY: the value is the reset value or one that the register had; no float is computed in between.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
}

#[cfg(target_arch = "aarch64")]
fn read() -> Control {
    let value: u64;
    // SAFETY: reads a register that every aarch64 has.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn write(value: Control) {
    // SAFETY: the value is the reset value or one that the register had; no float is computed in between.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_that_somebody_changed_is_plain_meanwhile_and_as_it_was_afterwards() {
        #[cfg(target_arch = "x86_64")]
        const CHANGED: Control = 0x1f80 | 0x8040;
        #[cfg(target_arch = "aarch64")]
        const CHANGED: Control = 1 << 24;
        let before = read();
        write(CHANGED);
        let seen = {
            let _plain = Plain::set();
            read()
        };
        let after = read();
        write(before);
        assert_eq!((seen, after), (PLAIN, CHANGED));
    }
}
