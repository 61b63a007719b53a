//! What the function itself may look like.

use accuracy_macros::accuracy_test;

#[accuracy_test]
async fn asynchronous(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
const fn constant(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
unsafe fn not_safe(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
extern "C" fn foreign(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
fn generic<T, const N: usize>(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
fn generic_lifetime<'a>(cx: &'a mut Case) -> Result<Tensor> {}

#[accuracy_test]
fn bounded(cx: &mut Case) -> Result<Tensor>
where
    Case: Send,
{
}

#[accuracy_test]
fn no_result(cx: &mut Case) {}

#[accuracy_test]
fn no_case() -> Result<Tensor> {}

#[accuracy_test]
fn axis_in_place_of_the_case(#[values(1, 2)] tile: i32) -> Result<Tensor> {}

#[accuracy_test]
fn case_by_value(cx: Case) -> Result<Tensor> {}

#[accuracy_test]
fn shared_case(cx: &Case) -> Result<Tensor> {}

#[accuracy_test]
fn r#match(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
#[ignore]
fn ignored(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
#[cfg_attr(all(), ignore = "slow", should_panic)]
fn ignored_at_times(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
#[should_panic(expected = "x")]
fn panics(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
#[test]
fn already_a_test(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
#[accuracy_test]
fn attribute_twice(cx: &mut Case) -> Result<Tensor> {}

#[accuracy_test]
struct NotAFunction;

struct Suite;

impl Suite {
    #[accuracy_test]
    fn method(&mut self, #[values(1)] tile: i32) -> Result<Tensor> {}
}

fn main() {}
