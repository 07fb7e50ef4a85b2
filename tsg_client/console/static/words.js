// What the service's words mean to a person: a name, and a tone (good, busy, wait, bad).

const REASONS = {
	Settled: ["Settled", "good"],
	Provisioning: ["Launching", "busy"],
	Replacing: ["Replacing", "busy"],
	Deleting: ["Deleting", "busy"],
	Deleted: ["Deleted", "idle"],
	Draining: ["Draining", "busy"],
	RollingOut: ["Rolling out", "busy"],
	QuotaExceeded: ["Quota exceeded", "bad"],
	TemplateRejected: ["Template rejected", "bad"],
	DeletionRejected: ["Deletion rejected", "bad"],
	AccountRejected: ["Account rejected", "bad"],
	CircuitOpen: ["Launches keep failing", "bad"],
	ServiceFailed: ["Service failed", "bad"],
	NoCapacity: ["No room in the data center", "wait"],
	Throttled: ["Throttled by CloudAPI", "wait"],
	Backoff: ["Pausing after failures", "wait"],
	CloudAPIUnavailable: ["CloudAPI unavailable", "wait"],
	CloudAPISlow: ["CloudAPI is slow", "wait"],
	NomadUnavailable: ["Nomad unavailable", "wait"],
};

/** CamelCase or snake_case as a phrase. */
export function phrase(word) {
	const text = String(word ?? "").replace(/_/g, " ").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
	return text.charAt(0).toUpperCase() + text.slice(1);
}

export const reason = (word) => REASONS[word] ?? [phrase(word), "wait"];

/** The four piles in which a list of groups is looked through. */
export const PILES = [
	["all", "All"],
	["bad", "Need a change"],
	["wait", "Held up"],
	["busy", "Changing"],
	["good", "Settled"],
];

const KINDS = {
	TSG_GROUP_CREATE: ["Group created", "change"],
	TSG_GROUP_UPDATE: ["Group changed", "change"],
	TSG_CAPACITY_CHANGE: ["Capacity changed", "change"],
	TSG_GROUP_DELETE: ["Group deleted", "change"],
	TSG_INSTANCE_LAUNCH: ["Instance launched", "busy", "instances launched"],
	TSG_INSTANCE_LAUNCH_ERROR: ["Launch failed", "bad", "launches failed"],
	TSG_INSTANCE_LAUNCH_LOST: ["Launch lost", "bad", "launches lost"],
	TSG_INSTANCE_TERMINATE: ["Instance deleted", "gone", "instances deleted"],
	TSG_INSTANCE_TERMINATE_ERROR: ["Deletion failed", "bad", "deletions failed"],
	TSG_INSTANCE_FOUND: ["Instance found", "busy", "instances found"],
	TSG_INSTANCE_UNHEALTHY: ["Instance unhealthy", "bad", "instances unhealthy"],
	TSG_INSTANCE_LOST: ["Instance gone", "bad", "instances gone"],
	TSG_INSTANCE_DRAIN: ["Instance drains", "gone", "instances drain"],
	TSG_INSTANCE_UNDRAIN: ["Instance taken back", "busy", "instances taken back"],
	TSG_INSTANCE_UPDATE: ["Instance changed in place", "busy", "instances changed in place"],
	TSG_INSTANCE_PROTECT: ["Protection", "change"],
	TSG_INSTANCE_VOTE: ["Health", "change"],
	TSG_INSTANCE_REMOVE: ["Member to go", "change"],
	TSG_INSTANCE_ADOPT: ["Member adopted", "change"],
	TSG_INSTANCE_DETACH: ["Member detached", "change"],
	TSG_POLICY_SCALE: ["Scaled by policies", "change"],
	TSG_ROLLOUT_START: ["Rollout started", "change"],
	TSG_ROLLOUT_STATE: ["Rollout", "busy"],
	TSG_ROLLOUT_WAVE: ["Rollout wave", "busy"],
	TSG_GROUP_SETTLED: ["Settled", "good"],
};

/** The name of an activity's kind, its tone, and its name where several are shown as one. */
export function kind(word) {
	if (KINDS[word]) return KINDS[word];
	const name = phrase(String(word).replace(/^TSG_(GROUP_)?/, ""));
	const tone = /ERROR|FAILED|UNHEALTHY|LOST|EXCEEDED|REJECTED|UNAVAILABLE/.test(word) ? "bad" : "change";
	return [name, tone];
}

const ROLLOUTS = {
	Pending: "busy", InProgress: "busy", Pausing: "busy", Paused: "wait", Baking: "busy", Successful: "good",
	Failed: "bad", Cancelled: "idle", RollingBack: "busy", RolledBack: "idle", RollbackFailed: "bad",
};
export const ROLLOUT_ENDED = ["Successful", "Failed", "Cancelled", "RolledBack", "RollbackFailed"];
export const rolloutTone = (state) => ROLLOUTS[state] ?? "wait";

/** What a member is to a person: the first of these that holds. */
export const MEMBERS = [
	["running", "Running"],
	["booting", "Booting"],
	["outdated", "Outdated"],
	["unhealthy", "Unhealthy"],
	["draining", "Draining"],
];

export function memberState(member) {
	if (member.draining_since || member.state === "deleting") return "draining";
	if (member.health?.status === "unhealthy" || ["failed", "stopped", "stopping", "offline"].includes(member.state)) return "unhealthy";
	if (member.state !== "running") return "booting";
	return member.outdated ? "outdated" : "running";
}
