//! The guide: how to use `cargo accuracy`, with one page for each question.
//!
//! | page | question |
//! | --- | --- |
//! | [`first_test`] | How do I test my kernels? |
//! | [`libraries`] | How are kernel libraries built and found? |
//! | [`verdict`] | What does this failure tell me? |
//! | [`names`] | Which checks, causes and lint rules are there? |
//! | [`layout`] | My scales are shuffled: how do I say that? |
//! | [`architecture`] | How do I run on another GPU, or without one? |
//! | [`gpus`] | What can a test on a GPU say beside that? |
//! | [`baselines`] | How do I notice that a kernel got worse? |
//! | [`machines`] | How do I run on several machines? |
//! | [`ci`] | How do I gate pull requests? |
//! | [`triage`] | The model is wrong: which kernel is it? |
//! | [`fix`] | Is it mended? |
//! | [`lint`] | What does the lint find? |
//! | [`limits`] | What does a green run not say? |
//!
//! The pages are the files of `docs/`. Their examples are compiled as tests.

#[doc = include_str!("../docs/first-test.md")]
pub mod first_test {}
#[doc = include_str!("../docs/libraries.md")]
pub mod libraries {}
#[doc = include_str!("../docs/verdict.md")]
pub mod verdict {}
#[doc = include_str!("../docs/names.md")]
pub mod names {}
#[doc = include_str!("../docs/layout.md")]
pub mod layout {}
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}
#[doc = include_str!("../docs/gpus.md")]
pub mod gpus {}
#[doc = include_str!("../docs/baselines.md")]
pub mod baselines {}
#[doc = include_str!("../docs/machines.md")]
pub mod machines {}
#[doc = include_str!("../docs/ci.md")]
pub mod ci {}
#[doc = include_str!("../docs/triage.md")]
pub mod triage {}
#[doc = include_str!("../docs/fix.md")]
pub mod fix {}
#[doc = include_str!("../docs/lint.md")]
pub mod lint {}
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}
