//! What a request to the API server asks for, read from its path: for metrics, and to say which right is missing. Pure.

use http::Method;

use crate::rights::{RIGHTS, Right, Scope};

/// What is not among the operator's rights; one label for all of it.
pub(crate) const OTHER: &str = "other";

/// Verb and resource of a request, both of a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) verb: &'static str,
    /// As `deployments.apps` or `queues.capstan.dev/status`.
    pub(crate) resource: &'static str,
}

impl Asked {
    /// Reads a request's method, path and query.
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let Some((group, rest)) = group(path) else {
            return Self { verb: verb(method, false, query), resource: OTHER };
        };
        let mut parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        // `namespaces/NAME/RESOURCE`, but not a namespace itself.
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
        }
        let resource = parts.first().copied().unwrap_or_default();
        let subresource = parts.get(2).copied().unwrap_or_default();
        Self { verb: verb(method, parts.len() > 1, query), resource: known(group, resource, subresource) }
    }

    /// Reads the API server's own words: `cannot patch resource "deployments/status" in API group "apps" …`.
    pub(crate) fn of_refusal(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once(" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, _) = rest.split_once('"')?;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let verb = VERBS.iter().find(|known| **known == verb)?;
        Some(Self { verb, resource: known(group, resource, subresource) })
    }

    /// Everything that the operator may ask for and must not be refused.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        RIGHTS.iter().filter(|right| right.scope != Scope::Cluster).flat_map(Self::of_right)
    }

    /// Whether the operator does without, where it may not ask for this.
    pub(crate) fn is_dispensable(self) -> bool {
        let mut rights = RIGHTS.iter().filter(|right| right.scope == Scope::Cluster);
        rights.any(|right| Self::of_right(right).any(|asked| asked == self))
    }

    fn of_right(right: &'static Right) -> impl Iterator<Item = Self> {
        let resources = right.resources.iter().map(|resource| name(right.group, resource));
        resources.flat_map(|resource| right.verbs.iter().map(move |verb| Self { verb, resource }))
    }
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

fn verb(method: &Method, is_named: bool, query: Option<&str>) -> &'static str {
    let is_watch = query.unwrap_or_default().split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
    match method.as_str() {
        "GET" if is_watch => "watch",
        "GET" if is_named => "get",
        "GET" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if is_named => "delete",
        "DELETE" => "deletecollection",
        _ => OTHER,
    }
}

/// The API group of a path, and what follows its version.
fn group(path: &str) -> Option<(&str, &str)> {
    if let Some(rest) = path.strip_prefix("/api/v1/") {
        return Some(("", rest));
    }
    let (group, rest) = path.strip_prefix("/apis/")?.split_once('/')?;
    Some((group, rest.split_once('/')?.1))
}

/// The label of a resource: those of the rights have one each.
fn known(group: &str, resource: &str, subresource: &str) -> &'static str {
    let whole =
        if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let right = RIGHTS.iter().filter(|right| right.group == group);
    let found = right.flat_map(|right| right.resources).find(|resource| **resource == whole);
    found.map_or(OTHER, |resource| name(group, resource))
}

/// `queues/status` of the group `capstan.dev` is `queues.capstan.dev/status`. There are few, each made once.
fn name(group: &str, resource: &'static str) -> &'static str {
    use std::collections::BTreeMap;
    use std::sync::LazyLock;
    static NAMES: LazyLock<BTreeMap<(&str, &str), &str>> = LazyLock::new(|| {
        let of = |right: &'static crate::rights::Right| {
            right.resources.iter().map(|resource| ((right.group, *resource), label(right.group, resource)))
        };
        RIGHTS.iter().flat_map(of).collect()
    });
    NAMES.get(&(group, resource)).copied().unwrap_or(resource)
}

fn label(group: &str, resource: &'static str) -> &'static str {
    if group.is_empty() {
        return resource;
    }
    let label = match resource.split_once('/') {
        Some((resource, subresource)) => format!("{resource}.{group}/{subresource}"),
        None => format!("{resource}.{group}"),
    };
    // Once for each right, as long as the process lives.
    Box::leak(label.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_asked_for() {
        for (method, path, query, verb, resource) in [
            ("GET", "/api/v1/services", Some("&labelSelector=a"), "list", "services"),
            ("GET", "/api/v1/services", Some("&watch=true&timeoutSeconds=290"), "watch", "services"),
            ("GET", "/api/v1/namespaces/shop/services/a", None, "get", "services"),
            ("GET", "/api/v1/namespaces/shop", None, "get", "other"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/shop/deployments/web",
                Some("fieldManager=capstan"),
                "patch",
                "deployments.apps",
            ),
            ("GET", "/apis/apps/v1/namespaces/shop/deployments", None, "list", "deployments.apps"),
            (
                "PATCH",
                "/apis/capstan.dev/v1alpha1/namespaces/shop/queues/a/status",
                None,
                "patch",
                "queues.capstan.dev/status",
            ),
            (
                "POST",
                "/apis/capstan.dev/v1alpha1/namespaces/shop/queues",
                None,
                "create",
                "queues.capstan.dev",
            ),
            (
                "GET",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/queues.capstan.dev",
                None,
                "get",
                "customresourcedefinitions.apiextensions.k8s.io",
            ),
            ("GET", "/apis/example.com/v1/namespaces/shop/things/a", None, "get", "other"),
            ("GET", "/version", None, "list", "other"),
        ] {
            let asked = Asked::of(&method.parse().unwrap(), path, query);
            assert_eq!((asked.verb, asked.resource), (verb, resource), "{method} {path}");
        }
    }

    #[test]
    fn a_refusal_says_which_right_is_missing() {
        let message = "deployments.apps \"web\" is forbidden: User \"system:serviceaccount:a:b\" cannot patch resource \"deployments\" in API group \"apps\" in the namespace \"shop\"";
        assert_eq!(Asked::of_refusal(message), Some(Asked { verb: "patch", resource: "deployments.apps" }));
        let status = "User \"a\" cannot patch resource \"queues/status\" in API group \"capstan.dev\" in the namespace \"shop\"";
        assert_eq!(Asked::of_refusal(status).unwrap().resource, "queues.capstan.dev/status");
        for other in [
            "services \"a\" is forbidden: exceeded quota: few",
            "pods \"a\" is forbidden: unable to create new content in namespace shop because it is being terminated",
        ] {
            assert_eq!(Asked::of_refusal(other), None);
        }
    }

    #[test]
    fn labels_are_few() {
        assert!((30..200).contains(&Asked::all().count()));
    }
}
