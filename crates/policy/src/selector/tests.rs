use super::*;

fn selector(text: &str) -> Selector {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} was refused: {error}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

#[test]
fn each_operator_selects_what_calicos_does() {
    let red = labels(&[
        ("color", "red"),
        ("app.example.com/tier", "front-end"),
        ("empty", ""),
    ]);
    for (text, expected) in [
        ("", true),
        ("all()", true),
        ("all( )", true),
        ("color == 'red'", true),
        ("color=='red'", true),
        ("color == \"blue\"", false),
        ("color != 'blue'", true),
        ("color != 'red'", false),
        ("absent == ''", false),
        ("absent != 'x'", true),
        ("empty == ''", true),
        ("color in {'red', 'blue'}", true),
        ("color in {'blue','green',}", false),
        ("color in {}", false),
        ("color not in {'red'}", false),
        ("color notin {'blue'}", true),
        ("absent not in {'red'}", true),
        ("absent in {'red'}", false),
        ("has(color)", true),
        ("has( absent )", false),
        ("!has(absent)", true),
        ("! ! has(color)", true),
        ("app.example.com/tier contains 'nt-e'", true),
        ("app.example.com/tier starts with 'front'", true),
        ("app.example.com/tier starts with 'end'", false),
        ("app.example.com/tier ends  with 'end'", true),
        ("absent contains ''", false),
        ("!(color == 'red')", false),
        ("color == 'red' && has(absent) || has(empty)", true),
        ("color == 'red' && (has(absent) || has(missing))", false),
        ("has(absent) || color == 'red' && has(empty)", true),
        ("color == 'red'\n  && has(empty)\t", true),
        // Words of the grammar are labels where a label stands.
        ("!has(has) && !has(in)", true),
        ("not != 'x' && contains != 'y' && all != 'z'", true),
    ] {
        assert_eq!(selector(text).matches(&red), expected, "{text}");
    }
}

#[test]
fn an_error_says_where_and_what() {
    use SelectorProblem as P;
    let no_operator = |label: &str| P::NoOperator { label: label.into() };
    for (text, at, problem) in [
        ("color = 'red'", 7, no_operator("color")),
        ("color", 6, no_operator("color")),
        ("color is 'red'", 7, no_operator("color")),
        ("color starts 'x'", 7, no_operator("color")),
        ("color == red", 10, P::NoValue),
        ("color == 'red", 10, P::OpenQuote),
        ("color in 'red'", 10, P::NoSet),
        ("color in {red}", 11, P::OpenSet),
        ("color in {'red' 'blue'}", 17, P::OpenSet),
        ("(color == 'red'", 16, P::OpenParenthesis),
        ("has(color", 10, P::OpenParenthesis),
        ("has()", 5, P::NoLabel),
        ("all(x)", 5, P::OpenParenthesis),
        ("&& has(x)", 1, P::NoExpression),
        ("has(x) &&", 10, P::NoExpression),
        ("has(x) & has(y)", 8, P::Trailing),
        ("has(x))", 7, P::Trailing),
        ("has(x) has(y)", 8, P::Trailing),
        // Counted in characters, not bytes.
        ("a == 'äöü' ü", 12, P::Trailing),
        ("!= 'x'", 2, P::NoExpression),
    ] {
        assert_eq!(
            text.parse::<Selector>(),
            Err(SelectorError { at, problem }),
            "{text}"
        );
    }
}

#[test]
fn nesting_and_labels_are_bounded() {
    let nested = |depth: usize| format!("{}has(x){}", "(".repeat(depth), ")".repeat(depth));
    assert!(nested(MAX_DEPTH).parse::<Selector>().is_ok());
    let too_deep = nested(MAX_DEPTH + 1).parse::<Selector>();
    assert_eq!(too_deep.map_err(|e| e.problem), Err(SelectorProblem::TooDeep));
    // Beside each other there may be any number.
    let wide = vec!["(has(x))"; 200].join(" && ");
    assert_eq!(selector(&wide), Selector::Has("x".into()));
    let long = format!("has({})", "k".repeat(513)).parse::<Selector>();
    assert_eq!(long.map_err(|e| e.problem), Err(SelectorProblem::LongLabel));
    // Negation is not nesting.
    assert_eq!(
        selector(&"!".repeat(100_000).add_has()),
        Selector::Has("x".into())
    );
}

trait AddHas {
    fn add_has(self) -> String;
}

impl AddHas for String {
    fn add_has(self) -> String {
        self + "has(x)"
    }
}

#[test]
fn equal_expressions_are_equal_values_and_are_read_back_as_written() {
    for (one, other) in [
        ("a == 'x' && b == 'y'", "b == \"y\" && (a == 'x')"),
        (
            "a == 'x' || (b == 'y' || has(c))",
            "has(c) || b == 'y' || a == 'x' || a == 'x'",
        ),
        ("a in {'x'}", "a == 'x'"),
        ("a not in {'x'}", "a != 'x'"),
        ("!(!has(a))", "has(a)"),
        ("a in {'y', 'x', 'y'}", "a in {'x', 'y'}"),
    ] {
        assert_eq!(selector(one), selector(other));
        let written = selector(one).to_string();
        assert_eq!(selector(&written), selector(one), "{written}");
    }
    assert_ne!(
        selector("has(a) && (has(b) || has(c))"),
        selector("has(a) && has(b) || has(c)")
    );
    assert_eq!(selector("a == 'it\"s'").to_string(), "a == 'it\"s'");
}

#[test]
fn a_namespace_selector_tells_what_is_in_no_namespace() {
    let prod = labels(&[("env", "prod")]);
    for (text, in_prod, in_none) in [
        ("all()", true, false),
        ("global()", false, true),
        ("env == 'prod'", true, false),
        ("env != 'dev'", true, true),
        ("global() || env == 'prod'", true, true),
        ("has(env) && env not in {'dev'}", true, false),
    ] {
        let selector = selector(text);
        assert_eq!(selector.matches_namespace(Some(&prod)), in_prod, "{text}");
        assert_eq!(selector.matches_namespace(None), in_none, "{text}");
    }
}
