using System.Text.RegularExpressions;

namespace NopeGpt.Data.Documents.Hub;

/// <summary>What of a data set on the Hub is meant.</summary>
/// <param name="Dataset">OWNER/NAME.</param>
/// <param name="Subset">Null for the data set's default.</param>
/// <param name="Split">Null for the one to train on.</param>
/// <param name="Revision">A branch, tag or commit.</param>
public sealed partial record HubName(string Dataset, string? Subset = null, string? Split = null, string Revision = HubName.MainRevision)
{
    public const string Prefix = "hub:";
    public const string MainRevision = "main";

    /// <summary>Whether a source's address means the Hub.</summary>
    public static bool IsHub(string address) => address is not null && address.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase);

    /// <summary>Reads hub:OWNER/NAME, with :SUBSET, :SUBSET:SPLIT and @REVISION behind it as wanted; the prefix may be missing.</summary>
    /// <exception cref="FormatException">The text is not of that form.</exception>
    public static HubName Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string rest = IsHub(text) ? text[Prefix.Length..] : text, revision = MainRevision;
        int at = rest.IndexOf('@', StringComparison.Ordinal);
        if (at >= 0) (rest, revision) = (rest[..at], rest[(at + 1)..]);
        string[] parts = rest.Split(':');
        if (parts.Length > 3 || revision.Length == 0 || parts.Contains("") || !DatasetForm().IsMatch(parts[0]) || parts[0].Contains("..", StringComparison.Ordinal))
            throw new FormatException($"\"{text}\" is not the name of a data set on the Hub; write hub:OWNER/NAME, with :SUBSET, :SUBSET:SPLIT or @REVISION behind it, such as hub:HuggingFaceFW/fineweb:sample-10BT.");
        return new(parts[0], parts.ElementAtOrDefault(1), parts.ElementAtOrDefault(2), revision);
    }

    public override string ToString() =>
        $"{Prefix}{Dataset}{(Subset is null ? "" : ":" + Subset)}{(Split is null ? "" : (Subset is null ? ":" + KnownDatasets.DefaultSubset : "") + ":" + Split)}{(Revision == MainRevision ? "" : "@" + Revision)}";

    [GeneratedRegex(@"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$", RegexOptions.CultureInvariant)]
    private static partial Regex DatasetForm();
}
