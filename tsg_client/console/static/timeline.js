// The activities of a group, the newest first: those of one kind and cause in a row are one entry.

import { each, h, put, renew } from "./dom.js";
import { clockWithSeconds, count, day, moment, nameOf, short } from "./format.js";
import { button, copyable, failed, segments } from "./ui.js";
import { isChange, kind } from "./words.js";

const VIEWS = [["all", "All"], ["change", "Changes"], ["failed", "Failures"]];

/** Runs of activities that say the same of different instances. */
function runs(activities) {
	const found = [];
	for (const one of activities) {
		const last = found.at(-1);
		const isSame = last && last[0].kind === one.kind && last[0].cause === one.cause && last[0].error_code === one.error_code && kind(one.kind)[2];
		if (isSame && day(last[0].ended_at) === day(one.ended_at)) last.push(one);
		else found.push([one]);
	}
	return found;
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** `templates` has the names of ids. */
export function timeline({ loadMore, templates }) {
	/** For a person: templates by their names, and without what stands beside it. */
	const brief = (text, one) => text.replace(`, request ${one.request_id}`, "").replaceAll("->", "→").replace(UUID, (id) => nameOf(templates, id));

	const list = h("ol.timeline");
	const more = button("Older activities", { class: "small", onclick: async () => {
		more.disabled = true;
		await loadMore().catch(failed);
		more.disabled = false;
	} });
	let view = "all";
	let activities = [];
	const views = segments(VIEWS, view, (name) => {
		view = name;
		draw();
	}, "Show");

	function draw() {
		const shown = activities.filter((one) => view === "all" || (view === "change" ? isChange(one.kind) : one.status === "failed" || kind(one.kind)[1] === "bad"));
		let before = "";
		const entries = runs(shown).map((run) => {
			const its = day(run[0].ended_at);
			const entry = { run, day: its === before ? "" : its, key: run.at(-1).id };
			before = its;
			return entry;
		});
		each(list, entries, (one) => one.key, () => h("li"), (element, { run, day: heading }) =>
			renew(element, `${run.length} ${heading} ${templates.size}`, () => [heading && h("h3.day", heading), entry(run, brief)]));
		if (!entries.length) put(list, h("li.quiet", view === "failed" ? "Nothing failed in what is shown." : "Nothing yet."));
	}

	return {
		element: h("div", list, more),
		views,
		update(found, hasMore) {
			activities = found;
			more.hidden = !hasMore;
			draw();
		},
	};
}

function entry(run, brief) {
	const [one] = run;
	const [name, tone, several] = kind(one.kind);
	const title = run.length > 1 ? `${count(run.length)} ${several}` : name;
	const from = run.at(-1).started_at;
	const time = h("time", { datetime: one.ended_at, title: `${moment(from)} – ${moment(one.ended_at)}` }, clockWithSeconds(new Date(one.ended_at)));
	const chips = [["by", one.actor], ["request", one.request_id], ["CloudAPI request", run.length === 1 && one.cloudapi_request_id], ["error", one.error_code]].filter(([, value]) => value);
	return h("div", { class: `entry ${one.status === "failed" ? "bad" : tone}` }, h("i.dot"), time,
		h("div.what", h("p", h("b", title), run.length === 1 && h("span", ` ${brief(one.description.replace(/^rollout [0-9a-f-]{36}:? /, ""), one)}`)),
			one.cause && !brief(one.description, one).includes(brief(one.cause, one)) && h("p.quiet.small", { title: one.cause }, brief(one.cause, one)),
			h("p.chips", chips.map(([label, value]) => h("span", `${label} `, value.length > 30 ? copyable(value, `the ${label} id`, short(value)) : h("span.mono", value)))),
			run.length > 1 && h("details.more.small", h("summary", "Which"),
				h("ul.mono", run.slice(0, 300).map((each_) => h("li", each_.description))))));
}
