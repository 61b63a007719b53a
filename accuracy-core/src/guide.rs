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

/// A page. In the repository a page links to the files of others, here to their modules: the first definition of a link counts.
macro_rules! page {
    ($text:expr, $name:ident) => {
        /// [first-test]: crate::guide::first_test
        /// [libraries]: crate::guide::libraries
        /// [verdict]: crate::guide::verdict
        /// [names]: crate::guide::names
        /// [layout]: crate::guide::layout
        /// [architecture]: crate::guide::architecture
        /// [gpus]: crate::guide::gpus
        /// [baselines]: crate::guide::baselines
        /// [machines]: crate::guide::machines
        /// [ci]: crate::guide::ci
        /// [triage]: crate::guide::triage
        /// [fix]: crate::guide::fix
        /// [lint]: crate::guide::lint
        /// [limits]: crate::guide::limits
        ///
        #[doc = $text]
        pub mod $name {}
    };
}

page!(include_str!("../docs/first-test.md"), first_test);
page!(include_str!("../docs/libraries.md"), libraries);
page!(include_str!("../docs/verdict.md"), verdict);
page!(include_str!("../docs/names.md"), names);
page!(include_str!("../docs/layout.md"), layout);
page!(include_str!("../docs/architecture.md"), architecture);
page!(include_str!("../docs/gpus.md"), gpus);
page!(include_str!("../docs/baselines.md"), baselines);
page!(include_str!("../docs/machines.md"), machines);
page!(include_str!("../docs/ci.md"), ci);
page!(include_str!("../docs/triage.md"), triage);
page!(include_str!("../docs/fix.md"), fix);
page!(include_str!("../docs/lint.md"), lint);
page!(include_str!("../docs/limits.md"), limits);
