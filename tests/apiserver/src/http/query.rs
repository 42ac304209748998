//! Query strings.

use std::collections::BTreeMap;

use crate::write::WriteOptions;

/// Decoded query parameters; of repeated ones the first counts.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: BTreeMap<String, String>,
    raw: String,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut pairs = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs
                .entry(decode(name, true))
                .or_insert_with(|| decode(value, true));
        }
        Self {
            pairs,
            raw: text.to_owned(),
        }
    }

    /// The query as it came.
    pub(crate) fn encoded(&self) -> &str {
        &self.raw
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.pairs.get(name).map_or("", String::as_str)
    }

    /// True for `1`, `true` and a name without value, as Go's query decoding has it.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.pairs
            .get(name)
            .is_some_and(|value| !["0", "false", "False"].contains(&value.as_str()))
    }

    /// Write options; the manager defaults to the program in `user_agent`.
    pub(crate) fn write_options(&self, user_agent: &str) -> WriteOptions {
        let manager = match self.text("fieldManager") {
            "" => user_agent.split('/').next().unwrap_or_default(),
            manager => manager,
        };
        WriteOptions {
            manager: manager.to_owned(),
            force: self.flag("force"),
            dry_run: self.text("dryRun") == "All",
            strict: self.text("fieldValidation") == "Strict",
        }
    }
}

/// Undoes percent-encoding; `+` is a space in queries only. What is not encoded properly is left as it is.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let (mut at, mut decoded) = (0, Vec::with_capacity(bytes.len()));
    while at < bytes.len() {
        let hex = || u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok();
        match bytes[at] {
            b'%' if hex().is_some() => {
                decoded.extend(hex());
                at += 2;
            }
            b'+' if plus => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_flags_read_as_go_reads_them() {
        let query =
            Query::parse("labelSelector=app%3Da%2Cb+c&watch=1&force&dryRun=All&bad=%zz&off=false&utf=%C3%A9");
        assert_eq!(query.text("labelSelector"), "app=a,b c");
        assert_eq!(query.text("bad"), "%zz");
        assert_eq!(query.text("utf"), "é");
        assert!(query.flag("watch") && query.flag("force") && !query.flag("off") && !query.flag("absent"));
        let options = query.write_options("kubectl/v1.33 (linux)");
        assert_eq!(
            (options.manager.as_str(), options.dry_run, options.strict),
            ("kubectl", true, false)
        );
    }
}
