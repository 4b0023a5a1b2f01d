namespace NopeGpt.Jobs.Inference;

/// <summary>Finds the first stop text in a text that arrives in pieces, and holds back what may be the beginning of one.</summary>
internal sealed class StopText(IReadOnlyList<string> stops)
{
    private string _held = "";

    /// <summary>True once a stop text has come; what follows is not part of the reply.</summary>
    public bool Found { get; private set; }

    /// <returns>What is certain to belong to the reply.</returns>
    public string Push(string text)
    {
        if (Found) return "";
        if (stops.Count == 0) return text;
        string all = _held + text;
        int first = stops.Select(s => all.IndexOf(s, StringComparison.Ordinal)).Where(i => i >= 0).DefaultIfEmpty(-1).Min();
        if (first >= 0)
        {
            (Found, _held) = (true, "");
            return all[..first];
        }
        int held = stops.Max(s => Overlap(all, s));
        _held = all[^held..];
        return all[..^held];
    }

    /// <returns>What was held back: the text has ended, so it was no stop text.</returns>
    public string Flush()
    {
        string rest = _held;
        _held = "";
        return rest;
    }

    /// <summary>Length of the longest end of the text that begins the stop text.</summary>
    private static int Overlap(string text, string stop)
    {
        for (int length = Math.Min(stop.Length - 1, text.Length); length > 0; length--)
            if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length))) return length;
        return 0;
    }
}
