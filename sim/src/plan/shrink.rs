//! A smaller plan.
use super::Plan;
/// Smallest.
pub fn smallest(plan: &Plan) -> Plan {
    plan.clone()
}
