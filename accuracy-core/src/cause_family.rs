//! The names of root causes that readers of a report may rely on, one row each. A report has a finer name beside them.

/// Declares every family once: its variant, its name in reports, and the finer names that belong to it. No cause has a name
/// that stands nowhere here.
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident $name:literal $([$($finer:literal),+])?;)*) => {
        /// The kind of mistake that a cause of a failure belongs to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CauseFamily {
            $($(#[$doc])* $variant,)*
        }

        impl CauseFamily {
            pub const ALL: &[CauseFamily] = &[$(CauseFamily::$variant),*];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(CauseFamily::$variant => $name,)*
                }
            }

            /// Its finer names.
            pub const fn finer(self) -> &'static [&'static str] {
                match self {
                    $(CauseFamily::$variant => &[$($($finer),+)?],)*
                }
            }

            /// The family of a cause by that cause's own name; `None` for a name that no row has.
            pub fn named(cause: &str) -> Option<CauseFamily> {
                match cause {
                    $($name $($(| $finer)+)? => Some(CauseFamily::$variant),)*
                    _ => None,
                }
            }

            /// The same where a newer version may have written the name, which is [`CauseFamily::Unknown`] then.
            pub fn of(cause: &str) -> CauseFamily {
                CauseFamily::named(cause).unwrap_or(CauseFamily::Unknown)
            }
        }
    };
}

families! {
    /// Scales are taken in another order.
    ScaleLayout "scale_layout";
    ScaleMissing "scale_missing";
    ScaleInverted "scale_inverted";
    /// The scale of another group is taken.
    ScaleNeighbour "scale_neighbour";
    /// Codes are read as another format of as many bits.
    Fp8Variant "fp8_variant";
    /// How packed integers are read.
    NibbleOrder "nibble_order" ["zero_point"];
    Transposed "transposed";
    PermutedTiles "permuted_tiles";
    GateUpSwapped "gate_up_swapped";
    /// Bits are lost, wherever.
    Accumulation "accumulation" ["rounding"];
    ParameterIgnored "parameter_ignored" ["addend_missing"];
    KTailDropped "k_tail_dropped";
    Unwritten "unwritten";
    OutOfBounds "out_of_bounds";
    Overflow "overflow";
    Nondeterministic "nondeterministic";
    /// The output is too large or too small by a factor.
    Gain "gain";
    Rope "rope";
    Router "router";
    /// No cause was found, or one that has only a finer name.
    Unknown "unknown"
        ["activation", "addend_extra", "norm_weight", "stale_state", "kept_from_first_call", "other_elements", "elements_left_out"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_own_and_finer_names_belong_to_one() {
        for &family in CauseFamily::ALL {
            assert_eq!(CauseFamily::of(family.name()), family);
        }
        for (finer, family) in [
            ("rounding", CauseFamily::Accumulation),
            ("zero_point", CauseFamily::NibbleOrder),
            ("addend_missing", CauseFamily::ParameterIgnored),
            ("activation", CauseFamily::Unknown),
        ] {
            assert_eq!(CauseFamily::of(finer), family, "{finer}");
        }
    }
}
