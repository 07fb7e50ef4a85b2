// The members of a group: a picture with a cell for each, and a table.

import { each, h, put, renew, say } from "./dom.js";
import { count, nameOf, plural, short, timeElement, until } from "./format.js";
import { button, copyable, facts, icon, menu, pill, segments, table } from "./ui.js";
import { MEMBERS, memberState, phrase } from "./words.js";

const PAGE = 50;
const TONES = { running: "good", booting: "busy", outdated: "wait", unhealthy: "bad", draining: "gone" };

const named = (member) => member.name ?? short(member.machine_id);

const told = (member) => [named(member), phrase(memberState(member)), member.protected && "protected", member.health.last_error].filter(Boolean).join(", ");

/** `actions(member)` gives the entries of its menu; `asked` is what the page's address says, and `keep` writes there. */
export function membersView({ actions, templates, asked, keep }) {
	const cells = h("div.cells", { role: "listbox", "aria-label": "Members" });
	const legend = h("div.legend");
	const detail = h("div.member");
	const rows = h("tbody");
	const more = button("Show more", { class: "small" });
	const listed = h("div", { hidden: true }, table(["Member", "State", "Health", "Template", "Running since", "Address", ""], rows, "members"), more);
	const picture = h("div", cells, detail);
	const show = (part) => {
		picture.hidden = part !== picture;
		listed.hidden = part !== listed;
	};
	const begin = asked.get("as") === "table" ? listed : picture;
	show(begin);
	const modes = segments([[picture, "Picture"], [listed, "Table"]], begin, (part) => {
		show(part);
		keep({ as: part === listed && "table" });
		draw();
	}, "Show as");
	const element = h("div", legend, picture, listed);

	const made = (member) => nameOf(templates, member.template_id);
	let members = [];
	let only = MEMBERS.find((state) => state === asked.get("only")) ?? "";
	let chosen = asked.get("member") ?? "";
	let most = PAGE;
	more.addEventListener("click", () => {
		most += 4 * PAGE;
		draw();
	});

	cells.addEventListener("click", (event) => {
		const cell = event.target.closest("button");
		if (!cell) return;
		chosen = cell.dataset.key === chosen ? "" : cell.dataset.key;
		keep({ member: chosen });
		draw();
	});
	cells.addEventListener("keydown", (event) => {
		const all = [...cells.children];
		const at = all.indexOf(document.activeElement);
		if (at < 0) return;
		const columns = all.findIndex((cell) => cell.offsetTop > all[0].offsetTop);
		const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns < 0 ? 0 : columns, ArrowUp: columns < 0 ? 0 : -columns, Home: -at, End: all.length - 1 - at }[event.key];
		if (step === undefined) return;
		event.preventDefault();
		const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
		for (const cell of all) cell.tabIndex = cell === next ? 0 : -1;
		next.focus();
	});

	function draw() {
		const states = new Map(MEMBERS.map((state) => [state, 0]));
		for (const member of members) states.set(memberState(member), states.get(memberState(member)) + 1);
		const isProtected = members.filter((one) => one.protected).length;
		legend.hidden = !members.length;
		renew(legend, JSON.stringify([[...states], only, isProtected]), () => [MEMBERS.filter((state) => states.get(state)).map((state) => h("button", {
			"aria-pressed": String(only === state), onclick: () => {
				only = only === state ? "" : state;
				keep({ only });
				draw();
			} }, h(`i.cell.${state}`), phrase(state), h("b", count(states.get(state))))),
		isProtected > 0 && h("span", h("i.cell.running.protected"), "Protected", h("b", count(isProtected)))]);
		const shown = only ? members.filter((one) => memberState(one) === only) : members;
		if (!picture.hidden) drawCells(shown);
		else drawRows(shown);
	}

	function drawCells(shown) {
		cells.dataset.size = shown.length > 300 ? "small" : shown.length > 60 ? "middle" : "large";
		each(cells, shown, (one) => one.machine_id, () => h("button", { role: "option", tabIndex: -1 }), (cell, member) => {
			const wanted = `cell ${memberState(member)}${member.protected ? " protected" : ""}`;
			if (cell.className !== wanted) cell.className = wanted;
			const words = told(member);
			if (cell.title !== words) cell.title = cell.ariaLabel = words;
			cell.ariaSelected = member.machine_id === chosen;
		});
		if (cells.firstChild && !cells.querySelector("[tabindex='0']")) cells.firstChild.tabIndex = 0;
		const member = members.find((one) => one.machine_id === chosen);
		if (!member) {
			detail.dataset.version = "";
			put(detail, shown.length ? h("p.quiet.small", "Choose a member to see more of it.") : h("p.quiet", "There is no instance. Ask for some by a larger capacity, or adopt a machine that runs."));
			return;
		}
		renew(detail, JSON.stringify([member, templates.size]), () => [h("div.member-head", pill(phrase(memberState(member)), TONES[memberState(member)]), h("b", named(member)), member.protected && h("span.quiet", icon("shield"), " protected"), memberMenu(member)),
			h("dl.facts", facts(known(member)))]);
	}

	const memberMenu = (member) => menu(`Actions for ${named(member)}`, actions(member));

	const time = (label, text) => text && [label, timeElement(text)];

	function known(member) {
		return [
			["Machine", copyable(member.machine_id, "the machine's id")],
			["Template", `${made(member)}${member.outdated ? " (outdated)" : ""}`],
			["Health", healthWords(member)],
			time("Launched", member.launched_at),
			time("Running since", member.running_since),
			time("Draining since", member.draining_since),
			member.protected_until && ["Protected", ["ends ", timeElement(member.protected_until, until)]],
			member.primary_ip && ["Address", copyable(member.primary_ip, "the address")],
			member.compute_node && ["Server", copyable(member.compute_node, "the server's id")],
		];
	}

	function drawRows(shown) {
		each(rows, shown.slice(0, most), (one) => one.machine_id, () => h("tr"), (row, member) => {
			const state = memberState(member);
			renew(row, JSON.stringify([member, templates.size]), () => [h("td", h("b", named(member)), member.protected && [" ", icon("shield")], h("div.quiet.mono", member.machine_id)),
				h("td", pill(phrase(state), TONES[state])),
				h("td.small", healthWords(member)),
				h("td", made(member)),
				h("td.small", member.running_since ? timeElement(member.running_since) : "–"),
				h("td.mono", member.primary_ip ?? "–"),
				h("td", memberMenu(member))]);
		});
		more.hidden = shown.length <= most;
		say(more.lastChild, `Show more of ${plural(shown.length, "member")}`);
	}

	return {
		element,
		modes,
		update(found = members) {
			members = found;
			draw();
		},
	};
}

function healthWords(member) {
	const { status, last_error: error } = member.health;
	return `${phrase(status)}${error ? `: ${error}` : ""}`;
}
