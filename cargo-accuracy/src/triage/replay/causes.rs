//! Which known mistake comes closest to what the dump has.

use super::mistakes::{Mistake, Named, last, mistakes_of, other_quantisers};
use super::router::other_routers;
use super::{Cause, Replay, dumped, last_rows, need, need_integers, same_shape};
use crate::triage::fits::{Mixed, Product};
use crate::triage::judge::{Judged, error_shown, relative_error, rows_of};
use crate::triage::side::Side;
use crate::triage::value::Value;
use accuracy_core::model::config::Weighed;
use accuracy_core::model::inputs::quantised;
use accuracy_core::model::ops::{Precision, Weights};
use accuracy_core::model::{Op, OpKind, Place, Plan, Site};
use accuracy_core::quant::Quant;
use accuracy_core::reference::Matrix;

/// Mistakes whose results are off by no more than this many times of each other cannot be told apart.
const ALIKE: f64 = 1.05;

/// A mistake that leaves more than this of the error is not worth telling.
const CLOSE: f64 = 0.15;

/// Tokens that a fit takes: more tell no more, and columns are many.
const FITTED: usize = 64;

/// Tokens with wrong experts that are looked into.
const WRONG_TOKENS: usize = 12;

/// Of more experts than these, only those that wrong tokens chose are looked into.
const MOST_EXPERTS: usize = 64;

impl Replay<'_> {
    /// The mistakes that come closest to what a dump has for an operation that is wrong.
    pub fn causes(&self, side: &Side, plan: &Plan, op: &Op, judged: &Judged) -> Option<Cause> {
        match &op.kind {
            OpKind::Router { router, correction } => {
                return self.router_causes(side, op, router, correction.as_deref(), judged);
            }
            OpKind::RopeTable { rope } => return self.table_causes(side, op, *rope, judged),
            OpKind::Indexer(indexer) => return self.indexer_causes(side, op, *indexer, judged),
            _ => {}
        }
        let out = dumped(side, &op.output).ok()?;
        let hidden = side.hidden(&out.lead);
        let has_bias = match &op.kind {
            OpKind::Linear { weight } => Weights(self.checkpoint).has(&format!("{}.bias", whole(weight))),
            _ => false,
        };
        let mut twists = mistakes_of(op, self.config, has_bias);
        twists.extend(self.other_places(plan, op, has_bias));
        if matches!(op.kind, OpKind::Experts { .. }) && !judged.through.is_empty() {
            // The choice is not in the dump, so that the mistake may be the router's.
            twists.iter_mut().for_each(|named| named.0 = Some("experts"));
            let layer = op.layer.and_then(|i| self.config?.layers.get(i)?.router.as_ref());
            let others = layer.filter(|r| !r.correction).map_or(Vec::new(), |r| other_routers(r));
            twists.extend(others.into_iter().map(|(detail, router)| {
                let mistake = Mistake { router: Some(router), ..Mistake::default() };
                (Some("router"), detail.to_owned(), mistake)
            }));
        }
        twists.extend(self.quantisers(op).first().into_iter().flat_map(other_quantisers));
        if twice(side, plan, op) {
            let detail = "the layer is executed twice".to_owned();
            return Some(Cause { op: None, detail, error: 0.0, explains: true });
        }
        let tried = twists.into_iter().filter_map(|(name, detail, mistake)| {
            let mistake = Mistake { inputs: mistake.inputs.or(judged.inputs), ..mistake };
            let x = self.plain(side, op, Precision::Exact, &mistake).ok()?;
            // Of logits, the rows that are asked for.
            let x = match &op.kind {
                OpKind::Linear { .. } => {
                    let all = Value::new(x, Vec::new(), out.precision, String::new());
                    last_rows(side, all, out.x.rows)
                }
                _ => x,
            };
            let value = Value::new(x, Vec::new(), out.precision, String::new());
            let out = same_shape(&value, out.clone()).ok()?;
            Some((name, detail, error_shown(&value.x, &out.x, &hidden)))
        });
        let mut tried: Vec<_> = tried.collect();
        if op.of_experts && matches!(op.kind, OpKind::Sum { .. } | OpKind::Blend) {
            tried.extend(self.experts_within(side, plan, op, &out, judged).unwrap_or_default());
        }
        let explained = tried.iter().any(|t| explains(t.2, judged));
        if !explained {
            let fitted = match &op.kind {
                OpKind::Linear { weight } => self.fitted(side, plan, op, weight, &out, judged),
                OpKind::Experts { .. } => self.mixed(side, op, &out, judged).unwrap_or_default(),
                _ => Vec::new(),
            };
            tried.extend(fitted.into_iter().map(|(detail, error)| (None, detail, error)));
        }
        best(tried.into_iter(), judged)
    }

    /// Mistakes of experts whose own output is not in the dump, only its sum with the shared expert's.
    fn experts_within(
        &self,
        side: &Side,
        plan: &Plan,
        op: &Op,
        out: &Value,
        judged: &Judged,
    ) -> Option<Vec<(Option<&'static str>, String, f64)>> {
        let is_experts = |i: &&usize| matches!(plan.ops[**i].kind, OpKind::Experts { .. });
        let experts = &plan.ops[*judged.through.iter().find(is_experts)?];
        let with = |op: &Op, mistake: Mistake| {
            let mistake = Mistake { inputs: mistake.inputs.or(judged.inputs), ..mistake };
            self.plain(side, op, Precision::Exact, &mistake).ok()
        };
        let (right, whole) = (with(experts, Mistake::default())?, with(op, Mistake::default())?);
        if (right.rows, right.cols) != (whole.rows, whole.cols) || out.x.data.len() != right.data.len() {
            return None;
        }
        // What the experts must have given, if all else in the sum is right.
        let rest = whole.data.iter().zip(&right.data);
        let given = out.x.data.iter().zip(rest).map(|(out, (whole, right))| out - (whole - right)).collect();
        let given = Value { x: Matrix::new(right.rows, right.cols, given), ..out.clone() };
        let hidden = side.hidden(&out.lead);
        // Errors are told relative to the sum.
        let norm = |m: &Matrix| m.data.iter().map(|v| v * v).sum::<f64>().sqrt();
        let share = norm(&right) / norm(&whole).max(f64::MIN_POSITIVE);
        let tried =
            mistakes_of(experts, self.config, false).into_iter().filter_map(|(_, detail, mistake)| {
                let made = with(experts, mistake)?;
                let moved =
                    whole.data.iter().zip(made.data.iter().zip(&right.data)).map(|(w, (m, r))| w + m - r);
                let made = Matrix::new(whole.rows, whole.cols, moved.collect());
                let out = same_shape(&Value { x: made.clone(), ..out.clone() }, out.clone()).ok()?;
                Some((Some("experts"), detail, error_shown(&made, &out.x, &hidden)))
            });
        let mut all: Vec<_> = tried.collect();
        let single = self.mixed(side, experts, &given, judged).unwrap_or_default();
        all.extend(single.into_iter().map(|(detail, error)| (Some("experts"), detail, error * share)));
        Some(all)
    }

    /// Values and biases of other modules that an operation may have taken for its own.
    fn other_places(&self, plan: &Plan, op: &Op, has_bias: bool) -> Vec<Named> {
        let none = Mistake::default();
        let mut all: Vec<Named> = Vec::new();
        let Some(layer) = op.layer else { return all };
        let beside = || plan.ops.iter().filter(move |o| o.layer == Some(layer));
        if let OpKind::Linear { weight } = &op.kind {
            if has_bias {
                for name in
                    beside().filter_map(linear_of).filter(|w| *w != weight && parent(w) == parent(weight))
                {
                    let mistake = Mistake { bias_of: Some(name.to_owned()), ..none.clone() };
                    all.push((None, format!("the bias is {}'s", last(name)), mistake));
                }
            }
            for norm in beside().filter(|o| matches!(o.kind, OpKind::Norm { .. })) {
                let before = Mistake { instead: Some((0, norm.inputs[0].clone())), ..none.clone() };
                all.push((None, format!("its input is what {} norms, not yet normed", norm.name), before));
                let after = Mistake { instead: Some((0, norm.output.clone())), ..none.clone() };
                all.push((None, format!("its input is the output of {}", norm.name), after));
            }
        }
        if let (OpKind::Sum { .. }, Some(scaling)) = (&op.kind, self.scaling(op)) {
            let all_of_it = Mistake { scaled: Some(scaling), ..none.clone() };
            let detail =
                "the shared expert is multiplied with the scaling factor of the routing weights, too";
            all.push((None, detail.to_owned(), all_of_it));
            let again = Mistake { late: Some(scaling), ..none.clone() };
            all.push((None, "the scaling factor of the routing weights is applied twice".to_owned(), again));
        }
        if let OpKind::Sum { .. } = &op.kind {
            for norm in beside().filter(|o| matches!(o.kind, OpKind::Norm { .. })) {
                for summand in 0..op.inputs.len() {
                    let detail = format!("summand {} is the output of {}", summand + 1, norm.name);
                    let mistake = Mistake { instead: Some((summand, norm.output.clone())), ..none.clone() };
                    all.push((None, detail, mistake));
                }
            }
        }
        all
    }

    /// What the output of a product tells by itself.
    fn fitted(
        &self,
        side: &Side,
        plan: &Plan,
        op: &Op,
        weight: &str,
        out: &Value,
        judged: &Judged,
    ) -> Vec<(String, f64)> {
        let weights = Weights(self.checkpoint);
        let Ok(x) = need(side, &op.inputs[0], Precision::Exact) else { return Vec::new() };
        let hidden = side.hidden(&x.lead);
        let x = last_rows(side, x, out.x.rows);
        if x.rows != out.x.rows {
            return Vec::new();
        }
        let shown: Vec<usize> =
            (0..x.rows).filter(|&r| !hidden.get(r).copied().unwrap_or(false)).take(FITTED).collect();
        let (x, out) = (rows_of(&x, &shown), rows_of(&out.x, &shown));
        let taken = |x: &Matrix, scheme: Option<&Quant>| {
            scheme.map_or_else(|| x.clone(), |scheme| quantised(x, scheme, Precision::Exact))
        };
        let product = |name: &str, x: &Matrix| weights.linear(name, x, Precision::Exact).ok().map(|y| y.y);
        let by_heads = matches!(op.name.as_str(), "q_proj" | "k_proj");
        let head = self.config.map(|c| c.attention.key_dim).filter(|_| by_heads);
        // An output that is quantised badly does not tell how its input was.
        let schemes = self.quantisers(op);
        let mut all = Vec::new();
        for inputs in [judged.inputs].into_iter().chain(schemes.first().map(|q| Some(*q))) {
            let x = taken(&x, inputs.as_ref());
            let Some(exact) = product(weight, &x).filter(|y| y.cols == out.cols) else { continue };
            let siblings = plan.ops.iter().filter(|o| o.layer == op.layer && o.layer.is_some());
            let others = siblings
                .filter_map(|o| Some((&o.name, linear_of(o)?)))
                .filter(|(_, w)| *w != weight && parent(w) == parent(weight))
                .filter_map(|(name, w)| Some((name.clone(), product(w, &x)?)))
                .collect::<Vec<_>>();
            let product = Product {
                weights,
                weight,
                x: &x,
                inputs: inputs.as_ref(),
                exact: &exact,
                out: &out,
                others: &others,
                head,
                bound: judged.bound,
            };
            all.extend(product.fits());
        }
        all
    }

    /// What one expert did that explains the tokens that are wrong.
    fn mixed(&self, side: &Side, op: &Op, out: &Value, judged: &Judged) -> Option<Vec<(String, f64)>> {
        let OpKind::Experts { module, activation, experts, weighed: Weighed::Output, stack } = &op.kind
        else {
            return None;
        };
        let weights = Weights(self.checkpoint);
        let x = need(side, &op.inputs[0], Precision::Exact).ok()?.x;
        let ids = match need_integers(side, &op.inputs[1]) {
            Ok(ids) => ids,
            Err(_) => {
                side.made(&op.inputs[1], Precision::Exact).ok()??.x.data.iter().map(|&e| e as i64).collect()
            }
        };
        let w = need(side, &op.inputs[2], Precision::Exact).ok()?.x;
        let exact = self
            .plain(side, op, Precision::Exact, &Mistake { inputs: judged.inputs, ..Mistake::default() })
            .ok()?;
        if out.x.rows != exact.rows
            || out.x.cols != exact.cols
            || ids.len() != w.data.len()
            || w.rows != x.rows
        {
            return None;
        }
        let hidden = side.hidden(&out.lead);
        let apart = |r: usize| {
            let one = |m: &Matrix| Matrix::new(1, m.cols, m.row(r).to_vec());
            relative_error(&one(&exact), &one(&out.x))
        };
        // A row has its own noise.
        let bad = |r: &usize| !hidden.get(*r).copied().unwrap_or(false) && apart(*r) > 3.0 * judged.bound;
        let rows: Vec<usize> = (0..exact.rows).filter(bad).take(WRONG_TOKENS).collect();
        let wrong = (0..exact.rows).filter(bad).count();
        if rows.is_empty() {
            return None;
        }
        let k = w.cols;
        let chosen: Vec<Vec<(usize, f64)>> = rows
            .iter()
            .map(|&r| {
                (0..k).filter_map(|s| Some((usize::try_from(ids[r * k + s]).ok()?, w.row(r)[s]))).collect()
            })
            .collect();
        let (x, exact, out) = (rows_of(&x, &rows), rows_of(&exact, &rows), rows_of(&out.x, &rows));
        let mixed = Mixed { out: &out, exact: &exact, chosen: &chosen };
        let run = |module: &str, e: usize| -> Option<Matrix> {
            let expert = weights.expert(module, e, *stack).ok()?;
            let input = |x: &Matrix| {
                judged.inputs.map_or_else(|| x.clone(), |scheme| quantised(x, &scheme, Precision::Exact))
            };
            Some(expert.apply(&x, *activation, Precision::Exact, &input))
        };
        let tokens = |n: usize| if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
        let mut all = Vec::new();
        for expert in mixed.common() {
            let own = run(module, expert)?;
            let left_out = mixed.replaced(expert, &own, None);
            all.push((format!("expert {expert} is left out for {}", tokens(wrong)), left_out));
            if *experts <= MOST_EXPERTS {
                for other in (0..*experts).filter(|&e| e != expert) {
                    let error = mixed.replaced(expert, &own, Some(&run(module, other)?));
                    all.push((
                        format!("expert {expert} has the weights of expert {other} for {}", tokens(wrong)),
                        error,
                    ));
                }
            }
            for layer in op.layer.into_iter().flat_map(|i| [i.wrapping_sub(1), i + 1]) {
                let stored = op.layer.map(|i| module.replacen(&format!(".{i}."), &format!(".{layer}."), 1));
                if let Some(other) = stored.and_then(|module| run(&module, expert)) {
                    let error = mixed.replaced(expert, &own, Some(&other));
                    all.push((
                        format!("expert {expert} has the weights of layer {layer}'s expert {expert}"),
                        error,
                    ));
                }
            }
        }
        if *experts <= MOST_EXPERTS {
            for e in 0..*experts {
                let (error, factors) = mixed.on_top(&run(module, e)?);
                let had = |t: usize| chosen[t].iter().find(|c| c.0 == e).map_or(0.0, |c| c.1);
                let told = match () {
                    () if (0..rows.len()).all(|t| had(t) == 0.0) => {
                        format!(
                            "the output of expert {e} is added for {} that did not choose it",
                            tokens(wrong)
                        )
                    }
                    () if (0..rows.len()).all(|t| (factors[t] / had(t) - 1.0).abs() < 0.02) => {
                        format!("expert {e} is added twice for {}", tokens(wrong))
                    }
                    () => format!("expert {e} has another routing weight for {}", tokens(wrong)),
                };
                all.push((told, error));
            }
        }
        Some(all)
    }
}

/// Whether nothing but noise is left of an error.
fn explains(error: f64, judged: &Judged) -> bool {
    error <= 1.5 * judged.bound && error < 0.5 * judged.error
}

/// The mistake that comes closest. It explains the error only if nothing but noise is left of it, and it is not worth
/// telling unless most of the error is gone. Of several that explain as much, none is more likely than another.
pub(super) fn best(
    tried: impl Iterator<Item = (Option<&'static str>, String, f64)>,
    judged: &Judged,
) -> Option<Cause> {
    let mut tried: Vec<_> = tried.filter(|t| !t.2.is_nan()).collect();
    tried.sort_by(|a, b| a.2.total_cmp(&b.2));
    let (op, detail, error) = tried.first()?.clone();
    let explained = explains(error, judged);
    let alike = tried.iter().skip(1).filter(|t| explained && explains(t.2, judged) && t.2 <= ALIKE * error);
    let others: Vec<&str> = alike.map(|t| t.1.as_str()).take(2).collect();
    let detail = if others.is_empty() { detail } else { format!("{detail}, or {}", others.join(", or ")) };
    let cause = Cause { op, detail, error, explains: explained };
    (explained || error < CLOSE * judged.error).then_some(cause)
}

/// The weight of a product.
fn linear_of(op: &Op) -> Option<&str> {
    match &op.kind {
        OpKind::Linear { weight } => Some(weight),
        _ => None,
    }
}

fn parent(module: &str) -> &str {
    whole(module).rsplit_once('.').map_or("", |m| m.0)
}

/// The module of which a weight may be some rows.
fn whole(weight: &str) -> &str {
    weight.split_once('#').map_or(weight, |w| w.0)
}

/// Whether the modules of an operation's layer ran twice in the pass, and those of no other layer.
pub(super) fn twice(side: &Side, plan: &Plan, op: &Op) -> bool {
    let again = |layer: usize| {
        let norms =
            plan.ops.iter().filter(|o| o.layer == Some(layer) && matches!(o.kind, OpKind::Norm { .. }));
        let called = norms
            .filter_map(|o| o.output.0.first())
            .map(|p| Site(vec![Place { call: 1, calls: None, ..p.clone() }]));
        called.into_iter().any(|site| matches!(side.load(&site), Ok(Some(_))))
    };
    let layers = || 0..plan.modules.len();
    matches!(op.kind, OpKind::Sum { .. })
        && op.layer.is_some_and(|own| again(own) && layers().filter(|&l| l != own).all(|l| !again(l)))
}
