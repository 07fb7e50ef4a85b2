// What the service's words mean to a person: a name, and a tone (good, busy, wait, bad).

const NAMES = {
	Provisioning: "Launching",
	CircuitOpen: "Launches keep failing",
	NoCapacity: "No room in the data center",
	Throttled: "Throttled by CloudAPI",
	Backoff: "Pausing after failures",
	CloudAPIUnavailable: "CloudAPI unavailable",
	CloudAPISlow: "CloudAPI is slow",
};
// Other reasons hold a group up.
const TONES = {
	Settled: "good", Deleted: "idle", Provisioning: "busy", Replacing: "busy", Deleting: "busy", Draining: "busy", RollingOut: "busy",
	QuotaExceeded: "bad", TemplateRejected: "bad", DeletionRejected: "bad", AccountRejected: "bad", CircuitOpen: "bad", ServiceFailed: "bad",
};

/** CamelCase or snake_case as a phrase. */
export function phrase(word) {
	const text = String(word ?? "").replace(/_/g, " ").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
	return text.charAt(0).toUpperCase() + text.slice(1);
}

export const reason = (word) => [NAMES[word] ?? phrase(word), TONES[word] ?? "wait"];

/** The instances of a group that do not just run, in counts. */
export const onItsWay = ({ provisioning, failed, deleting }) =>
	[provisioning && `${provisioning} coming`, failed && `${failed} failed`, deleting && `${deleting} going`].filter(Boolean);

/** The four piles in which a list of groups is looked through. */
export const PILES = [
	["all", "All"],
	["bad", "Need a change"],
	["wait", "Held up"],
	["busy", "Changing"],
	["good", "Settled"],
];

// Kinds of activities that somebody asked for -> their names.
const CHANGES = {
	GROUP_CREATE: "Group created",
	GROUP_UPDATE: "Group changed",
	CAPACITY_CHANGE: "Capacity changed",
	GROUP_DELETE: "Group deleted",
	POLICY_SCALE: "Scaled by policies",
	POLICY_CREATE: "Policy created",
	POLICY_UPDATE: "Policy changed",
	POLICY_DELETE: "Policy deleted",
	ROLLOUT_START: "Rollout started",
	INSTANCE_PROTECT: "Protection",
	INSTANCE_VOTE: "Health",
	INSTANCE_REMOVE: "Member to go",
	INSTANCE_ADOPT: "Member adopted",
	INSTANCE_DETACH: "Member detached",
};
// Others -> their names, tones, and what is said of several.
const KINDS = {
	INSTANCE_LAUNCH_ERROR: ["Launch failed", "bad", "launches failed"],
	INSTANCE_LAUNCH_LOST: ["Launch lost", "bad", "launches lost"],
	INSTANCE_TERMINATE_ERROR: ["Deletion failed", "bad", "deletions failed"],
};
const DONE = {
	LAUNCH: ["launched", "busy"],
	TERMINATE: ["deleted", "gone"],
	FOUND: ["found", "busy"],
	UNHEALTHY: ["unhealthy", "bad"],
	LOST: ["gone", "bad"],
	DRAIN: ["taken out of service", "gone"],
	UNDRAIN: ["taken back", "busy"],
	UPDATE: ["changed in place", "busy"],
};

/** The name of an activity's kind, its tone, and its name where several are shown as one. */
export function kind(word) {
	const [, short, of] = /^TSG_((?:INSTANCE_(\w+))?.*)/.exec(word) ?? [];
	if (CHANGES[short]) return [CHANGES[short], "change"];
	if (KINDS[short]) return KINDS[short];
	if (DONE[of]) return [`Instance ${DONE[of][0]}`, DONE[of][1], `instances ${DONE[of][0]}`];
	const tone = /ERROR|FAILED|UNHEALTHY|LOST|EXCEEDED|REJECTED|UNAVAILABLE/.test(word) ? "bad" : /SETTLED/.test(word) ? "good" : /STATE|WAVE/.test(word) ? "busy" : "change";
	return [phrase(word.replace(/^TSG_(GROUP_)?/, "")), tone];
}

/** Is it of an activity that somebody asked for? */
export const isChange = (word) => word.slice(4) in CHANGES || /ROLLOUT/.test(word);

const ROLLOUTS = {
	Pending: "busy", InProgress: "busy", Pausing: "busy", Baking: "busy", Successful: "good",
	Failed: "bad", Cancelled: "idle", RollingBack: "busy", RolledBack: "idle", RollbackFailed: "bad",
};
export const ROLLOUT_ENDED = ["Successful", "Failed", "Cancelled", "RolledBack", "RollbackFailed"];
export const rolloutTone = (state) => ROLLOUTS[state] ?? "wait";

/** What a member is to a person: the first of these that holds. */
export const MEMBERS = ["running", "booting", "outdated", "unhealthy", "draining"];

export function memberState(member) {
	if (member.draining_since || member.state === "deleting") return "draining";
	if (member.health.status === "unhealthy" || ["failed", "stopped", "stopping", "offline"].includes(member.state)) return "unhealthy";
	if (member.state !== "running") return "booting";
	return member.outdated ? "outdated" : "running";
}
