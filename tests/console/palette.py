"""Pictures with a palette of 256 colours, a third as large: the browser counts and replaces the colours."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from tests.console.browser import Browser

REPLACE = """
const [png, done] = arguments;
(async () => {
  const octets = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([octets], { type: "image/png" }));
  const { width, height } = picture;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const parts = (colour) => [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
  const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 256).map(([colour]) => parts(colour));
  const nearest = new Map();
  for (const colour of counts.keys()) {
    const [red, green, blue] = parts(colour);
    let [best, least] = [0, Infinity];
    palette.forEach(([r, g, b], number) => {
      const far = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
      if (far < least) [best, least] = [number, far];
    });
    nearest.set(colour, best);
  }
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(nearest.get(pixel));
  done({ width, height, palette: palette.flat(), pixels: btoa(text) });
})();
"""


def indexed(window: Browser, png: bytes) -> bytes:
    """Return a picture with the 256 most frequent of its colours."""
    script = base64.b64encode(png).decode()
    made: dict[str, Any] = window.driver.execute_async_script(REPLACE, script)
    width, height = made["width"], made["height"]
    pixels = base64.b64decode(made["pixels"])
    rows = b"".join(b"\0" + pixels[row * width : (row + 1) * width] for row in range(height))
    parts = (
        _part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _part(b"PLTE", bytes(made["palette"])),
        _part(b"IDAT", zlib.compress(rows, 9)),
        _part(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
