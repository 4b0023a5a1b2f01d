using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;

namespace NopeGpt.Jobs.Queue;

/// <summary>The section Notices of appsettings.json.</summary>
/// <param name="Webhooks">Where notices go; none by default.</param>
/// <param name="Secret">Signs what is sent; empty for no signature.</param>
/// <param name="Dashboard">The address of the dashboard, for links; null where it is not fixed.</param>
internal sealed record NoticeOptions(IReadOnlyList<Webhook> Webhooks, string Secret, string? Dashboard)
{
    private const int MostWebhooks = 10;

    /// <summary>A receiver has so long for its answer.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>After a try that was not taken; after the last one the notice is given up.</summary>
    public IReadOnlyList<TimeSpan> Pauses { get; init; } = [TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(30), TimeSpan.FromMinutes(2), TimeSpan.FromMinutes(10)];

    /// <exception cref="UserException">An address that is none. What it is stays unsaid: such addresses are secrets.</exception>
    public static NoticeOptions Read(IConfiguration configuration)
    {
        IConfigurationSection section = configuration.GetSection("Notices"), addresses = section.GetSection("Webhook");
        string[] texts = [.. addresses.GetChildren().Select(c => c.Value).Append(addresses.Value).SelectMany(v => (v ?? "").Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)).Distinct(StringComparer.Ordinal)];
        if (texts.Length > MostWebhooks) throw new UserException($"Notices:Webhook names {texts.Length} addresses: {MostWebhooks} at most");
        Webhook[] webhooks = [.. texts.Select(Webhook.Parse)];
        string? listens = configuration["urls"]?.Split(';')[0].TrimEnd('/');
        return new NoticeOptions(webhooks, section["Secret"] ?? "", Uri.TryCreate(listens, UriKind.Absolute, out Uri? uri) && uri.Port != 0 ? listens : null);
    }
}

/// <summary>One receiver. Its path and query often are a secret, so only its host is ever shown or stored.</summary>
internal sealed record Webhook(Uri Address)
{
    private const int KeyDigits = 16;

    /// <summary>Stands for the address in file names: the first digits of its SHA-256.</summary>
    public string Key { get; } = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(Address.AbsoluteUri)))[..KeyDigits];

    /// <summary>For example "https://hooks.example.com/…".</summary>
    public override string ToString() => $"{Address.GetLeftPart(UriPartial.Authority)}/…";

    public static Webhook Parse(string text)
    {
        if (!Uri.TryCreate(text, UriKind.Absolute, out Uri? uri) || (uri.Scheme != Uri.UriSchemeHttp && uri.Scheme != Uri.UriSchemeHttps))
            throw new UserException("Notices:Webhook has something that is not an address: use http://HOST/PATH or https://HOST/PATH, several with blanks between them");
        if (uri.UserInfo.Length > 0) throw new UserException($"Notices:Webhook has a name or password before the host {uri.Host}: leave it out and sign with Notices:Secret");
        return new Webhook(uri);
    }
}
