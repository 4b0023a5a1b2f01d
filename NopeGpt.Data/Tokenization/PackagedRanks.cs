using System.Globalization;
using System.IO.Compression;
using System.Reflection;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>The .tiktoken files that come with the packages Microsoft.ML.Tokenizers.Data.*: compressed resources with one line that says how many
/// tokens follow, then a line for every token in base64, whose rank is the number of its line.</summary>
internal static class PackagedRanks
{
    private const string Head = "Capacity";

    /// <summary>The file as it is published: lines of a token in base64, a space and its rank.</summary>
    /// <param name="package">The package, which is the name of its assembly too.</param>
    /// <param name="encoding">As in cl100k_base.</param>
    /// <exception cref="InvalidDataException">The package holds something else.</exception>
    public static byte[] Read(string package, string encoding)
    {
        string resource = $"{encoding}.tiktoken.deflate";
        using Stream compressed = Assembly.Load(package).GetManifestResourceStream(resource)
            ?? throw new InvalidDataException($"The package {package} does not hold {resource}; take version 2.0 of it.");
        using DeflateStream content = new(compressed, CompressionMode.Decompress);
        using MemoryStream text = new();
        content.CopyTo(text);
        ReadOnlySpan<byte> lines = text.GetBuffer().AsSpan(0, (int)text.Length);
        if (!lines.StartsWith(Encoding.ASCII.GetBytes(Head))) throw new InvalidDataException($"{resource} of the package {package} does not begin with '{Head}'; take version 2.0 of it.");
        using MemoryStream published = new(lines.Length * 2);
        Span<byte> number = stackalloc byte[16];
        int rank = -1;
        foreach (Range range in lines.Split((byte)'\n'))
        {
            ReadOnlySpan<byte> token = lines[range].TrimEnd((byte)'\r');
            if (token.IsEmpty) continue;
            if (rank >= 0)
            {
                published.Write(token);
                published.WriteByte((byte)' ');
                rank.TryFormat(number, out int digits, provider: CultureInfo.InvariantCulture);
                published.Write(number[..digits]);
                published.WriteByte((byte)'\n');
            }
            rank++;
        }
        return published.ToArray();
    }
}
