//! Which bias belongs to which weight, by their names.

use accuracy_core::weights::{Checkpoint, WeightInfo};

/// What follows the module's name: of a layer, of stacked experts, and of a router that corrects its scores.
const ENDINGS: [&str; 3] = [".bias", "_bias", ".e_score_correction_bias"];
/// What ends the name of a weight whose bias is called likewise, in OpenAI's form of gpt-oss.
const WEIGHT: &str = "_weight";

/// The biases of a module.
pub fn of(checkpoint: &Checkpoint, module: &str) -> Vec<String> {
    let names = ENDINGS.iter().map(|ending| format!("{module}{ending}"));
    let likewise = module.strip_suffix(WEIGHT).map(|layer| format!("{layer}_bias"));
    names.chain(likewise).filter(|name| checkpoint.raw(name).is_ok()).collect()
}

/// The weight matrix whose bias a tensor is.
pub fn weight(checkpoint: &Checkpoint, tensor: &str) -> Option<WeightInfo> {
    let layers = ENDINGS.iter().filter_map(|ending| tensor.strip_suffix(ending));
    layers
        .flat_map(|layer| [layer.to_owned(), format!("{layer}{WEIGHT}")])
        .find_map(|module| checkpoint.describe(&module).ok())
}
