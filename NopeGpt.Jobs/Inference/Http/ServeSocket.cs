using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>The right to listen on one Unix socket. One process has it at a time; it ends with the process, however that ends.</summary>
internal sealed class ServeSocket : IDisposable
{
    private readonly FileStream _lock;

    private ServeSocket(string path, FileStream held) => (Path, _lock) = (path, held);

    public string Path { get; }

    /// <summary>Takes the socket's path; what a killed process left there is removed.</summary>
    /// <exception cref="UserException">Another process listens there, or the path is taken by something else.</exception>
    public static ServeSocket Take(string path)
    {
        FileStream held;
        try { held = new FileStream(path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None); }
        catch (DirectoryNotFoundException) { throw new UserException($"the folder of {path} does not exist: make it or name another socket with --socket"); }
        catch (UnauthorizedAccessException) { throw new UserException($"{path} cannot be made by this user: name another socket with --socket"); }
        catch (IOException) { throw Taken(path); }
        try
        {
            RemoveStale(path);
            return new ServeSocket(path, held);
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    /// <summary>Makes the socket its owner's alone (mode 0600). Nobody can connect before it listens, which comes after this.</summary>
    public static Socket Bind(EndPoint endpoint)
    {
        Socket socket = SocketTransportOptions.CreateDefaultBoundListenSocket(endpoint);
        if (endpoint is UnixDomainSocketEndPoint && !OperatingSystem.IsWindows()) File.SetUnixFileMode(endpoint.ToString()!, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return socket;
    }

    public void Dispose() => _lock.Dispose();

    private static void RemoveStale(string path)
    {
        if (!File.Exists(path)) return;
        using (Socket probe = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            try
            {
                probe.Connect(new UnixDomainSocketEndPoint(path));
                throw Taken(path);
            }
            catch (SocketException) { /* nobody listens */ }
        }
        if (IsOrdinaryFile(path)) throw new UserException($"{path} is a file and no socket: name another path with --socket");
        File.Delete(path);
    }

    /// <summary>A socket cannot be opened as a file.</summary>
    private static bool IsOrdinaryFile(string path)
    {
        try
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            return true;
        }
        catch (IOException) { return false; }
    }

    private static UserException Taken(string path) => new($"another nopegpt serve listens on {path}: use that one, end it, or name another socket with --socket");
}
