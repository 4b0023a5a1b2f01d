using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Web.Live;

/// <summary>The secret by which trainers of this dashboard may publish: random at every start, told through dashboard.json only.</summary>
internal sealed class HubKey
{
    public string Text { get; } = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));

    /// <summary>Compares in a time that says nothing about the key.</summary>
    public bool Matches(string? candidate) =>
        candidate is not null && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(candidate), Encoding.UTF8.GetBytes(Text));

    /// <summary>True where a request carries the key: as a bearer token, or as access_token where a client can set no header.</summary>
    public bool IsIn(HttpRequest? request)
    {
        string header = request?.Headers.Authorization.ToString() ?? "";
        return Matches(header.StartsWith("Bearer ", StringComparison.Ordinal) ? header["Bearer ".Length..] : request?.Query["access_token"].ToString());
    }
}
