// The frame of the pages: which page is shown, the theme, whether the service can be reached.

import { about, connection, get, learn, passes, rest } from "./api.js";
import { h, put, say } from "./dom.js";
import { tick } from "./format.js";
import { icon, problem } from "./ui.js";

const main = document.getElementById("main");

// Address of a page -> its module, loaded when it is shown first.
const PAGES = [
	[/^\/groups$/, () => import("./groups.js")],
	[/^\/groups\/([0-9a-f-]{36})$/, () => import("./group.js")],
	[/^\/templates$/, () => import("./templates.js")],
	[/^\/notifications$/, () => import("./notifications.js")],
];

// Address -> how far down it was when it was left: a list comes back there.
const depths = new Map();
let leaving = new AbortController();
let isFirst = true;

async function show() {
	leaving.abort();
	leaving = new AbortController();
	const { signal } = leaving;
	const path = location.hash.slice(1).split("?")[0] || "/groups";
	const [at, load] = PAGES.find(([one]) => one.test(path)) ?? [];
	const argument = at?.exec(path)[1];
	const depth = argument ? 0 : depths.get(location.hash) ?? 0;
	for (const link of document.querySelectorAll("#nav a")) link.ariaCurrent = path.startsWith(link.hash.slice(1)) ? "page" : null;
	if (!at) {
		put(main, h("div.empty", h("h1", "There is no such page"), h("p", h("a", { href: "#/groups" }, "All groups"))));
		return;
	}
	for (let failures = 1; ; failures += 1) {
		try {
			const [page] = await Promise.all([load(), learn()]);
			if (signal.aborted) return;
			const root = h("div.page", h("p.quiet.first", "Loading …"));
			put(main, root);
			await page.show(root, { signal, argument, title });
			scrollTo(0, depth);
			// A screen reader says where it is now; at first by itself.
			if (!isFirst) main.focus({ preventScroll: true });
			isFirst = false;
			return;
		} catch (error) {
			if (signal.aborted) return;
			put(main, problem(error));
			if (!passes(error)) return;
			await rest(failures, signal);
		}
	}
}

function title(text) {
	document.title = `${text} – Triton Service Groups`;
}

// Name -> its icon, and what the button says.
const THEMES = { auto: ["auto", "Theme: as the system's"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };

function theme() {
	const toggle = document.getElementById("theme");
	const choose = (name) => {
		const [sign, label] = THEMES[name];
		document.documentElement.dataset.theme = name;
		localStorage.setItem("theme", name);
		toggle.title = toggle.ariaLabel = label;
		put(toggle, icon(sign));
	};
	const names = Object.keys(THEMES);
	toggle.addEventListener("click", () => choose(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]));
	choose(names.find((name) => name === localStorage.getItem("theme")) ?? "auto");
}

function watchConnection() {
	const banner = document.getElementById("lost");
	connection.addEventListener("lost", (event) => {
		put(banner, icon("alert"), h("span", `${event.detail} What you see is of ${new Date().toLocaleTimeString()}. Trying again …`));
		banner.hidden = false;
	});
	connection.addEventListener("back", () => {
		banner.hidden = true;
	});
}

async function sayWhose() {
	try {
		const { account, service } = Object.assign(about, (await get("/console/about.json")).body);
		const host = service.replace(/^https?:\/\//, "");
		say(document.getElementById("who"), host ? `${account} @ ${host}` : `${account} (development)`);
	} catch {
		// Whose page it is can be done without.
	}
}

theme();
watchConnection();
setInterval(tick, 1000);
document.querySelector(".skip").addEventListener("click", (event) => {
	event.preventDefault();
	main.focus();
});
history.scrollRestoration = "manual";
addEventListener("scroll", () => depths.set(location.hash, scrollY), { passive: true });
addEventListener("hashchange", show);
show().then(sayWhose);
