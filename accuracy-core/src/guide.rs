//! The guide: how to use `cargo accuracy`, a page a question.
//!
//! | page | question |
//! | --- | --- |
//! | [`first_test`] | How do I test my kernels? |
//! | [`verdict`] | What does this failure tell me? |
//! | [`layout`] | My scales are shuffled: how do I say that? |
//! | [`architecture`] | How do I run on another GPU? |
//! | [`triage`] | The model is wrong: which kernel is it? |
//! | [`fix`] | Is it mended? |
//! | [`lint`] | What does the lint find? |
//! | [`limits`] | What does a green run not say? |
//! | [`ci`] | How do I gate pull requests? |
//!
//! What lives here: pages without code of their own; their examples are tests.

#[doc = include_str!("../docs/first-test.md")]
pub mod first_test {}
#[doc = include_str!("../docs/verdict.md")]
pub mod verdict {}
#[doc = include_str!("../docs/layout.md")]
pub mod layout {}
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}
#[doc = include_str!("../docs/triage.md")]
pub mod triage {}
#[doc = include_str!("../docs/fix.md")]
pub mod fix {}
#[doc = include_str!("../docs/lint.md")]
pub mod lint {}
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}
#[doc = include_str!("../docs/ci.md")]
pub mod ci {}
