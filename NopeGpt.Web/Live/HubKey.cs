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
}
