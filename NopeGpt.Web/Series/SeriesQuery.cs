using NopeGpt.Model;

namespace NopeGpt.Web.Series;

/// <summary>Which part of the curves of metrics a chart asks for, and how fine.</summary>
/// <param name="Metric">The first of <see cref="Metrics"/>.</param>
/// <param name="From">First x shown; null from the beginning.</param>
/// <param name="To">Last x shown; null to the end.</param>
/// <param name="Buckets">Points at most.</param>
/// <param name="Smooth">Weight of the past in the smoothed line, 0 (none) to 0.999.</param>
internal sealed record SeriesQuery(string Metric, SeriesAxis Axis, double? From, double? To, int Buckets, double Smooth)
{
    public const int DefaultBuckets = 1000;
    public const int MostBuckets = 20_000;
    public const double MostSmooth = 0.999;
    public const int MostMetrics = 50;

    /// <summary>One or several.</summary>
    public IReadOnlyList<string> Metrics { get; init; } = [Metric];

    /// <summary>Reads ?metric=&amp;x=&amp;from=&amp;to=&amp;buckets=&amp;smooth=; what is wrong goes to <paramref name="problems"/>.</summary>
    public static SeriesQuery Parse(IQueryCollection query, List<Problem> problems)
    {
        string[] metrics = [.. query["metric"].Select(m => m ?? "")];
        if (metrics.Length is 0 or > MostMetrics) problems.Add(new Problem("metric", metrics.Length == 0 ? "" : $"{metrics.Length} of them", $"name 1 to {MostMetrics} metrics, for example train/loss"));
        foreach (string metric in metrics.Where(m => m.Length is 0 or > 200)) problems.Add(new Problem("metric", metric.Length > 40 ? metric[..40] + "..." : metric, "name a metric, for example train/loss"));
        string x = query["x"].ToString();
        if (!TryAxis(x, out SeriesAxis axis)) problems.Add(new Problem("x", x, "must be step, tokens or wall"));
        double? from = Number(query, "from", problems);
        double? to = Number(query, "to", problems);
        if (from > to) problems.Add(new Problem("to", query["to"].ToString(), $"must not be less than from ({query["from"]})"));
        double buckets = Number(query, "buckets", problems) ?? DefaultBuckets;
        if (buckets is < 1 or > MostBuckets || buckets != Math.Floor(buckets)) problems.Add(new Problem("buckets", query["buckets"].ToString(), $"must be a whole number from 1 to {MostBuckets}"));
        double smooth = Number(query, "smooth", problems) ?? 0;
        if (smooth is < 0 or > MostSmooth) problems.Add(new Problem("smooth", query["smooth"].ToString(), $"must be from 0 to {MostSmooth}"));
        return new SeriesQuery(metrics.FirstOrDefault() ?? "", axis, from, to, (int)Math.Clamp(buckets, 1, MostBuckets), smooth) { Metrics = metrics };
    }

    private static bool TryAxis(string text, out SeriesAxis axis)
    {
        axis = text switch { "tokens" => SeriesAxis.Tokens, "wall" => SeriesAxis.Wall, _ => SeriesAxis.Step };
        return text is "" or "step" or "tokens" or "wall";
    }

    private static double? Number(IQueryCollection query, string name, List<Problem> problems)
    {
        string text = query[name].ToString();
        if (text.Length == 0) return null;
        if (double.TryParse(text, out double value) && double.IsFinite(value)) return value;
        problems.Add(new Problem(name, text, "must be a number"));
        return null;
    }
}
