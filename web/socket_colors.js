// A colour for each kind of value of this pack, on sockets and links; the frontend's palettes leave them all grey.
import { app } from "../../scripts/app.js";

const COLORS = {
  AP3D_PORTRAIT: "#e8b34b",
  AP3D_VIEWS: "#4bb3e8",
  AP3D_MESH: "#9fd05a",
  AP3D_NORMALS: "#8f8cf0",
  AP3D_LABELS: "#e07bb0",
  AP3D_PARTS: "#d85c8a",
  AP3D_BODY: "#c98a5e",
  AP3D_FIT: "#e5744a",
  AP3D_LANDMARKS: "#5fd0b8",
  AP3D_POINTS: "#62c46e",
  AP3D_AVATAR: "#f2e25c",
  AP3D_GUIDANCE: "#b07ce8",
  AP3D_PROMPTS: "#d9a6f2",
  AP3D_MOTION: "#4fd6e0",
};

// Palettes write an empty colour for every type that they do not know, so this is repeated after them.
function paint() {
  const onSockets = app.canvas?.default_connection_color_byType;
  if (onSockets) Object.assign(onSockets, COLORS);
  const onLinks = app.canvas?.constructor?.link_type_colors;
  if (onLinks) Object.assign(onLinks, COLORS);
  for (const [type, color] of Object.entries(COLORS)) {
    document.documentElement.style.setProperty(`--color-datatype-${type}`, color);
  }
  app.canvas?.setDirty?.(true, true);
}

app.registerExtension({
  name: "animportrait3d.socketColors",
  setup() {
    paint();
    app.ui?.settings?.addEventListener?.("Comfy.ColorPalette.change", () => setTimeout(paint));
  },
  afterConfigureGraph: paint,
});
