//! Labels of an API object.

use std::collections::BTreeMap;
use std::fmt;

/// `metadata.labels`: values by key. There is a map for each pod of the cluster and few keys in each, so it is a list, by key.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let position = self.position(key).ok()?;
        Some(&self.0[position].1)
    }

    /// Sets a key's value, whatever it was.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.position(&key) {
            Ok(position) => self.0[position].1 = value,
            Err(position) => {
                self.0.reserve_exact(1);
                self.0.insert(position, (key, value));
            }
        }
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(key))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        pairs.collect::<BTreeMap<String, String>>().into()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self(labels.into_iter().collect())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_the_value_that_was_set_last() {
        let mut labels = Labels::from_iter([("b", "1"), ("a", "1"), ("b", "2")]);
        labels.set("c", "1");
        labels.set("a", "3");
        labels.set("aa", "");
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("a", "3"), ("aa", ""), ("b", "2"), ("c", "1")]);
        assert_eq!([labels.get("b"), labels.get("ab")], [Some("2"), None]);
    }
}
