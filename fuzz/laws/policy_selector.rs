//! What holds of a policy's selector, whatever the text says.

use warren_policy::selector::{SelectorError, SelectorProblem};
use warren_policy::{Labels, Selector};

/// Longest refusal in bytes: it is shown in tables.
const MESSAGE: usize = 400;

/// A text is read to an expression that is read back as written and selects the same, or is refused at one of its
/// characters in a few words.
pub(crate) fn holds(data: &[u8]) {
    // The API holds text only.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<Selector>() {
        Ok(selector) => {
            let written = selector.to_string();
            let again: Result<Selector, SelectorError> = written.parse();
            assert_eq!(again.as_ref(), Ok(&selector), "{written}");
            assert_eq!(
                selector.clone().normal(),
                selector,
                "normal is not the normal form of itself"
            );
            let negated: Selector = format!("!({written})")
                .parse()
                .unwrap_or_else(|error: SelectorError| {
                    // One more parenthesis may be one too many.
                    assert_eq!(error.problem, SelectorProblem::TooDeep, "{written}: {error}");
                    Selector::Not(Box::new(selector.clone()))
                });
            for labels in [Labels::default(), Labels::from_iter([("a", "b"), ("c", "d")])] {
                assert_ne!(selector.matches(&labels), negated.matches(&labels), "{written}");
            }
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}");
            let message = error.to_string();
            assert!(message.len() <= MESSAGE, "{} bytes: {message}", message.len());
        }
    }
}
