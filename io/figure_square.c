#include "io/figure_square.h"

#include "io/html.h"

struct rgb square_blend(struct rgb a, struct rgb b, double t)
{
    return (struct rgb){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

struct rgb square_blue(double share)
{
    static const struct rgb low = {247, 251, 255}, middle = {107, 174, 214}, high = {8, 48, 107};
    return share < 0.5 ? square_blend(low, middle, share * 2) : square_blend(middle, high, share * 2 - 1);
}

void square_open(struct text *svg, double x, double y, double w, double h, struct rgb color)
{
    text_add(svg, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#%02x%02x%02x\"", x, y, w, h,
             (int)(color.r + 0.5), (int)(color.g + 0.5), (int)(color.b + 0.5));
}

void square_label(struct text *svg, double x, double y, const char *anchor, const char *more, const char *label)
{
    text_add(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
    html_text(svg, label);
    text_add(svg, "</text>\n");
}
