using System.Net;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>Where and how long `nopegpt serve` answers.</summary>
/// <param name="Socket">Unix socket; null where Urls is given.</param>
/// <param name="Urls">Loopback addresses, or null.</param>
/// <param name="Idle">Without a request for this long it ends; zero never.</param>
internal sealed record ServeOptions(string? Socket, IReadOnlyList<Uri>? Urls, TimeSpan Idle, ModelLimits Limits)
{
    /// <summary>Where the files of published tokenizers may lie, besides the store.</summary>
    public IReadOnlyList<string> TokenizerPlaces { get; init; } = [];

    /// <summary>sockaddr_un has 108 bytes for the path and its end.</summary>
    public const int LongestSocketPath = 107;

    /// <summary>Addresses from "http://127.0.0.1:5081;http://localhost:5082", or null with what is wrong.</summary>
    public static IReadOnlyList<Uri>? ParseUrls(string text, out string problem)
    {
        List<Uri> urls = [];
        foreach (string part in text.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!Uri.TryCreate(part, UriKind.Absolute, out Uri? url) || url.Scheme != Uri.UriSchemeHttp || url.AbsolutePath != "/" || !IsLoopback(url.IdnHost))
            {
                problem = "give loopback addresses such as http://127.0.0.1:5081; other machines cannot be let in yet";
                return null;
            }
            urls.Add(url);
        }
        problem = urls.Count == 0 ? "give an address such as http://127.0.0.1:5081" : "";
        return urls.Count == 0 ? null : urls;
    }

    public static bool IsLoopback(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host.Trim('[', ']'), out IPAddress? address) && IPAddress.IsLoopback(address));
}
