//! Every rule of the resource definitions (CEL), on a real API server: an object that it refuses, and nearly the same that it
//! accepts.
//!
//! The cases are in `queue.yaml`, `consumer.yaml` and `broker.yaml` beside this file. Each names a rule by where it stands and
//! what it says. A rule about changes has an object that is there before. The refused object and the accepted one differ in
//! one place. A rule without a case fails the test, and so does a case without a rule.

mod table;

use std::collections::BTreeSet;

use capstan_crds::{ParseError, parse};
use e2e::cluster::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::{GroupVersionKind, Status};
use serde_json::{Value, json};

use self::table::{Case, Rule, Side, cases, rules};
use crate::stage::on_empty_stage;

const KINDS: [&str; 3] = ["Queue", "Consumer", "Broker"];

/// A trial: everything is checked, and nothing is stored.
fn trial() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// The objects of one kind in a namespace.
struct Objects {
    kind: &'static str,
    api: Api<DynamicObject>,
}

impl Objects {
    fn new(namespace: &Namespace, kind: &'static str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("capstan.dev", "v1alpha1", kind));
        let api = Api::namespaced_with(namespace.cluster.client.clone(), &namespace.name, &resource);
        Self { kind, api }
    }

    fn object(&self, side: &Side, name: &str) -> Value {
        let name = side.name.as_deref().unwrap_or(name);
        json!({"apiVersion": "capstan.dev/v1alpha1", "kind": self.kind, "metadata": {"name": name}, "spec": side.spec})
    }

    async fn create(&self, side: &Side, name: &str, params: &PostParams) -> kube::Result<DynamicObject> {
        let object = serde_json::from_value(self.object(side, name)).unwrap();
        self.api.create(params, &object).await
    }

    /// Tries one object in the place of what is there before, if a case has that.
    async fn attempt(&self, before: Option<&DynamicObject>, side: &Side) -> kube::Result<DynamicObject> {
        let Some(before) = before else { return self.create(side, "orders", &trial()).await };
        let mut object = before.clone();
        object.data["spec"] = side.spec.clone();
        self.api.replace(before.metadata.name.as_deref().unwrap(), &trial(), &object).await
    }

    /// Has the API server judge both sides of a case.
    async fn judge(&self, number: usize, case: &Case) {
        let mut before = None;
        if let Some(side) = &case.before {
            let name = format!("before-{number}");
            let created = self.create(side, &name, &PostParams::default()).await;
            before = Some(created.unwrap_or_else(|error| panic!("{case:?}: {error}")));
        }
        if let Err(error) = self.attempt(before.as_ref(), &case.accepted).await {
            panic!("{} {case:?} is to be accepted: {error}", self.kind);
        }
        match self.attempt(before.as_ref(), &case.refused).await {
            Err(kube::Error::Api(status)) => is_refused_by_that_rule(case, &status),
            other => panic!("{} {case:?} is to be refused: {other:?}", self.kind),
        }
        if case.before.is_none() {
            self.judge_without_a_cluster(case);
        }
    }

    /// Local mode gives the same two answers.
    fn judge_without_a_cluster(&self, case: &Case) {
        let of = |side: &Side| parse(&self.object(side, "orders").to_string());
        of(&case.accepted).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        match of(&case.refused) {
            Err(ParseError::Invalid { problems, .. }) => {
                let [problem] = &problems[..] else { panic!("{case:?}: {problems:?}") };
                // Of names it has words of its own: it has to refuse what API servers know to be no name, too.
                let is_name = case.path.is_empty() && problem.starts_with("metadata.name: ");
                assert!(is_name || problem.ends_with(&case.message), "{case:?}: {problem}");
            }
            other => panic!("{case:?} is to be refused: {other:?}"),
        }
    }
}

/// It was refused by this rule alone, where the rule stands, and in the rule's own words.
fn is_refused_by_that_rule(case: &Case, status: &Status) {
    let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
    let [cause] = causes else { panic!("{case:?}: {status:?}") };
    let field = if case.path.is_empty() { "<nil>" } else { &case.path };
    assert_eq!(cause.field, field, "{case:?}: {}", cause.message);
    assert!(cause.message.ends_with(&format!(": {}", case.message)), "{case:?}: {}", cause.message);
}

/// Each case is of a rule, and each rule has a case.
fn compare(kind: &str, rules: &[Rule], cases: &[Case]) {
    let of_cases: BTreeSet<(&str, &str)> = cases.iter().map(Case::key).collect();
    let of_rules: BTreeSet<(&str, &str)> = rules.iter().map(Rule::key).collect();
    let without: Vec<_> = of_rules.difference(&of_cases).collect();
    assert!(without.is_empty(), "rules of {kind} without a case: {without:#?}");
    let strange: Vec<_> = of_cases.difference(&of_rules).collect();
    assert!(strange.is_empty(), "cases of {kind} that are of no rule: {strange:#?}");
    assert_eq!(of_rules.len(), rules.len(), "two rules of {kind} say the same: {rules:#?}");
    for case in cases {
        let rule = rules.iter().find(|rule| rule.key() == case.key()).unwrap();
        assert_eq!(rule.is_about_changes(), case.before.is_some(), "{case:?} of {rule:?}");
        assert_eq!(case.differences(), 1, "{case:?} has more than one difference");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_refuses_what_it_says_and_nothing_beside_it() {
    on_empty_stage("rules", async |namespace| {
        let mut judged = 0;
        for kind in KINDS {
            let (rules, cases) = (rules(kind), cases(kind));
            compare(kind, &rules, &cases);
            let objects = Objects::new(namespace, kind);
            for (number, case) in cases.iter().enumerate() {
                objects.judge(number, case).await;
                judged += 1;
            }
            println!("{kind}: {} rules, {} cases", rules.len(), cases.len());
        }
        assert!(judged > 30, "only {judged} cases were judged");
    })
    .await;
}
