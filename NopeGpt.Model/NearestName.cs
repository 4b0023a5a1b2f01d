namespace NopeGpt.Model;

/// <summary>What a mistyped name may have meant.</summary>
public static class NearestName
{
    // Longer texts are no mistyped names, and the distance takes time with the length.
    private const int MaxLength = 100;

    /// <summary>The known name that is nearest by edit distance, case and the signs _ and - aside; null when none is near.</summary>
    public static string? Of(string name, IEnumerable<string> known) => name.Length > MaxLength ? null : known
        .Select(k => (Name: k, Distance: Distance(Plain(name), Plain(k))))
        .Where(k => k.Distance <= Math.Max(2, k.Name.Length / 3))
        .OrderBy(k => k.Distance).Select(k => k.Name).FirstOrDefault();

    private static string Plain(string name) => name.Replace("_", "", StringComparison.Ordinal).Replace("-", "", StringComparison.Ordinal).ToLowerInvariant();

    private static int Distance(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(row[j] + 1, row[j - 1] + 1), diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[^1];
    }
}
