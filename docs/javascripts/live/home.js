// The home page's model, begun as soon as the page is there: a visitor waits for it, and the theme's own script, after which
// site.js begins all others, takes a while.

import "./hero.js";
import { start } from "./live.js";

start(document.querySelectorAll("[data-live]"), true);
