//! Mixtures of experts in one and in two stages.
