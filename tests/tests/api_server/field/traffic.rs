//! What the operator asks of the API server, counted by verb and resource.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{Method, Uri};

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// As in RBAC; `try` for a patch that is a dry run.
    pub(crate) verb: &'static str,
    /// As in RBAC: `queues/status`.
    pub(crate) resource: String,
}

impl Call {
    /// What a request asks.
    pub(crate) fn of(method: &Method, uri: &Uri) -> Self {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        // The group of the core has no name.
        let skipped = if parts.next() == Some("api") { 1 } else { 2 };
        let mut parts: Vec<&str> = parts.skip(skipped).collect();
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
        }
        let (resource, subresource) = (parts.first().copied().unwrap_or_default(), parts.get(2));
        let asks = |what: &str| uri.query().is_some_and(|query| query.contains(what));
        let (is_watch, is_trial) = (asks("watch=true"), asks("dryRun=All"));
        let verb = match *method {
            Method::GET if is_watch => "watch",
            Method::GET if parts.len() > 1 => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PATCH if is_trial => "try",
            Method::PATCH => "patch",
            Method::PUT => "update",
            _ => "delete",
        };
        let resource = subresource.map_or(resource.to_owned(), |sub| format!("{resource}/{sub}"));
        Self { verb, resource }
    }

    /// Whether it changes something, or may.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb, "watch" | "get" | "list" | "try")
    }
}

/// How many requests of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count(BTreeMap<Call, u64>);

impl Count {
    /// Counts one more.
    pub(crate) fn add(&mut self, call: Call) {
        *self.0.entry(call).or_default() += 1;
    }

    /// How many there are for which `is` holds.
    pub(crate) fn of(&self, is: impl Fn(&Call) -> bool) -> u64 {
        self.0.iter().filter(|(call, _)| is(call)).map(|(_, count)| count).sum()
    }

    /// All but the watches, which stay open.
    pub(crate) fn requests(&self) -> u64 {
        self.of(|call| call.verb != "watch")
    }

    /// What came since an older count.
    pub(crate) fn since(&self, old: &Self) -> Self {
        let less = |(call, count): (&Call, &u64)| {
            (call.clone(), count - old.0.get(call).copied().unwrap_or_default())
        };
        Self(self.0.iter().map(less).filter(|(_, count)| *count > 0).collect())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests and {} watches", self.requests(), self.of(|call| call.verb == "watch"))?;
        for (call, count) in &self.0 {
            write!(f, "; {} {} {count}", call.verb, call.resource)?;
        }
        Ok(())
    }
}

#[test]
fn requests_are_told_apart() {
    let of = |method: &str, uri: &str| {
        let call = Call::of(&method.parse().unwrap(), &uri.parse().unwrap());
        format!("{} {}", call.verb, call.resource)
    };
    assert_eq!(of("GET", "/apis/capstan.dev/v1alpha1/queues?limit=500"), "list queues");
    assert_eq!(of("GET", "/apis/capstan.dev/v1alpha1/queues?watch=true&resourceVersion=1"), "watch queues");
    assert_eq!(
        of("PATCH", "/apis/capstan.dev/v1alpha1/namespaces/shop/queues/orders/status?force=true"),
        "patch queues/status"
    );
    assert_eq!(
        of("PATCH", "/apis/apps/v1/namespaces/shop/deployments/orders?&dryRun=All&fieldManager=a"),
        "try deployments"
    );
    assert_eq!(of("POST", "/apis/apps/v1/namespaces/shop/statefulsets"), "create statefulsets");
    assert_eq!(of("GET", "/api/v1/namespaces/shop/services/orders"), "get services");
    assert_eq!(of("GET", "/api/v1/namespaces/shop"), "get namespaces");
}
