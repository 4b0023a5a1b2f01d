using System.Net;
using System.Net.Sockets;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Hosting;

/// <summary>The dashboard's command line and addresses, checked before anything starts.</summary>
internal static class DashboardArguments
{
    public const string Help = """
        The dashboard of NopeGpt. Options (also in appsettings.json, and in the environment as NOPEGPT_Storage__Root and so on):
          --urls URL        address to listen on, of this machine only (default http://127.0.0.1:5080; port 0 takes a free one)
          --root DIR        storage root (default: the user's local application data, nopegpt)
          --SECTION:NAME=X  any setting of appsettings.json, for example --Jobs:OnShutdown=Detach
        """;

    private static readonly string[] Known = ["urls", "root", "environment"];

    /// <exception cref="UserException">An option that does not exist, or something that is none.</exception>
    public static void Check(string[] args)
    {
        for (int i = 0; i < args.Length; i++)
        {
            string name = args[i].Split('=')[0];
            if (!name.StartsWith("--", StringComparison.Ordinal)) throw new UserException($"'{args[i]}' is not an option: use --urls, --root or --Section:Name=value");
            if (!name.Contains(':') && !Known.Contains(name[2..], StringComparer.OrdinalIgnoreCase)) throw new UserException($"{name} is not an option: use --urls, --root or --Section:Name=value");
            if (args[i].Contains('=')) continue;
            if (i + 1 == args.Length) throw new UserException($"{name} needs a value: {name} VALUE or {name}=VALUE");
            i++;
        }
    }

    /// <exception cref="UserException">An address that is not one, that other machines could reach, or whose port is taken.</exception>
    public static void CheckAddresses(IConfiguration configuration)
    {
        if (configuration.GetSection("Kestrel:Endpoints").GetChildren().Any()) throw new UserException("Kestrel:Endpoints is not supported: name the address with --urls");
        string urls = configuration["urls"] ?? "";
        if (urls.Length == 0) throw new UserException("no address to listen on: name one with --urls http://127.0.0.1:5080");
        foreach (string url in urls.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!Uri.TryCreate(url, UriKind.Absolute, out Uri? uri) || uri.Scheme != Uri.UriSchemeHttp)
                throw new UserException($"'{url}' is not an address to listen on: use --urls http://127.0.0.1:5080");
            if (!LocalOnly.IsLocal(uri.Host))
                throw new UserException($"{url} could be reached from other machines, and there is no login yet: use --urls http://127.0.0.1:{uri.Port}, and from elsewhere a tunnel (ssh -L {uri.Port}:127.0.0.1:{uri.Port})");
            CheckFree(url, uri);
        }
    }

    public static UserException InUse(string url) =>
        new($"{url} is in use by another program: end it, or take another port with --urls http://127.0.0.1:PORT (0 takes a free one)");

    /// <summary>Before the queue starts its work, not after.</summary>
    private static void CheckFree(string url, Uri uri)
    {
        if (uri.Port == 0) return;
        IPAddress address = IPAddress.TryParse(uri.Host.Trim('[', ']'), out IPAddress? named) ? named : IPAddress.Loopback;
        using Socket socket = new(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.Bind(new IPEndPoint(address, uri.Port));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            throw InUse(url);
        }
        catch (SocketException e)
        {
            throw new UserException($"{url} cannot be listened on ({e.Message}): use --urls http://127.0.0.1:5080");
        }
    }
}
